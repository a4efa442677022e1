-- Does what time has done; gives after how many microseconds to come again.
local due = P .. ':due'
for _, id in ipairs(call('ZRANGEBYSCORE', due, '-inf', text(now), 'LIMIT', 0, 16)) do
  local q = Q.open(id)
  local at = q and Q.reap(q) and Q.next(q) or NEVER
  if at < NEVER then
    call('ZADD', due, text(at), id)
  else
    call('ZREM', due, id)
  end
end
call('ZREMRANGEBYSCORE', P .. ':sessions', '-inf', text(now))
Q.finish(nil)
local first = call('ZRANGE', due, 0, 0, 'WITHSCORES')[2]
return { '+', first and text(math.max(0, tonumber(first) - now)) or '' }
