-- ARGV: session.
local session = ARGV[1]
call('ZREM', P .. ':sessions', session)
for _, id in ipairs(call('SMEMBERS', P .. ':sq:' .. session)) do
  local q = Q.open(id)
  if q and Q.reap(q) then
    for _, message in ipairs(call('ZRANGE', key(q, 'f'), 0, -1)) do
      local s = Q.state(q, message)
      if s.n == session then
        Q.land(q, message, s)
        Q.fail(q, message, s, 0)
      end
    end
    local all = call('HGETALL', key(q, 'c'))
    for i = 1, #all, 2 do
      if opened[id] and cmsgpack.unpack(all[i + 1]).n == session then
        Q.drop_consumer(q, all[i])
      end
    end
  end
end
call('DEL', P .. ':sq:' .. session)
return Q.finish({ '+' })
