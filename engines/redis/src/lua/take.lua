-- ARGV: queue, session, its ttl, how many, lease, consumer, whether to forget, request.
local q = Q.find(ARGV[1])
if not q or not Q.reap(q) then
  return Q.finish(refusal('not-found', ARGV[1]))
end
local session, ttl, max, lease = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local consumer, forget, request = ARGV[6], ARGV[7] == '1', ARGV[8]
local reply = { '+', q.id, 0 } -- 1: there may be more at once

local function show(id, s)
  local deaths = {}
  for _, death in ipairs(s.d or {}) do
    deaths[#deaths + 1] = { death[1], death[2], death[3], text(death[4]) }
  end
  reply[#reply + 1] = { id, text(s.t), s.a + 1, s.r and 1 or 0, text(s.b), deaths,
    call('HGET', key(q, 'm'), id) }
end

local seen = Q.seen(request)
if seen then
  for _, id in ipairs(seen) do
    local s = Q.state(q, id)
    if s and s.t and s.n == session then
      show(id, s)
    end
  end
  return Q.finish(reply)
end

local function active()
  local all, least, first = call('HGETALL', key(q, 'c')), nil, nil
  for i = 1, #all, 2 do
    local serial = cmsgpack.unpack(all[i + 1]).q
    if not least or serial < least then
      least, first = serial, all[i]
    end
  end
  return first
end

if consumer == '' then
  if q.alone then
    return Q.finish(refusal('in-use', q.name))
  end
  if q.single and call('HLEN', key(q, 'c')) > 0 then
    max = 0
  end
else
  local credit = tonumber(call('HGET', key(q, 'n'), consumer))
  if not credit then
    return Q.finish(refusal('no-consumer', consumer))
  end
  max = forget and max or math.min(max, credit)
  if q.single and active() ~= consumer then
    max = 0
  end
end
if q.paused then
  max = 0
end
if max > 0 and consumer ~= '' and not forget and not q.single then
  -- One message for each who waits longer, so that consumers are served in turns.
  local ahead = call('ZRANK', key(q, 'g'), consumer) or 0
  max = math.min(max, math.max(0, call('ZCARD', key(q, 'r')) - ahead))
end

local taken, bytes, parked = {}, 0, 0
while #taken < max do
  local id = call('ZPOPMIN', key(q, 'r'))[1]
  if not id then
    break
  end
  local s = Q.state(q, id)
  if (#taken > 0 and bytes + s.w > BYTES) or parked >= WORK then
    call('ZADD', key(q, 'r'), Q.place(s, id), id)
    reply[3] = 1
    break
  elseif s.k and call('HEXISTS', key(q, 'k'), s.k) == 1 then
    call('ZADD', key(q, 'p') .. ':' .. s.k, Q.place(s, id), id)
    call('SADD', key(q, 'h'), s.k)
    Q.sum(q, 'parked', 1)
    parked = parked + 1
    if s.x then
      call('ZREM', key(q, 'x'), id)
    end
  else
    if s.x then
      call('ZREM', key(q, 'x'), id)
    end
    if s.k then
      call('HSET', key(q, 'k'), s.k, id)
    end
    bytes = bytes + s.w
    taken[#taken + 1] = { id, s }
  end
end
if #taken == 0 then
  return Q.finish(reply)
end

local token, ids = versions(#taken), {}
local ends = forget and NEVER or Q.hold(q, session, ttl)
for i, one in ipairs(taken) do
  local id, s = one[1], one[2]
  s.t = token + i - 1
  show(id, s)
  ids[i] = id
  if forget then
    Q.remove(q, id, s)
    Q.sum(q, 'acked', 1)
    if s.k then
      call('HDEL', key(q, 'k'), s.k)
      Q.unpark(q, s.k)
    end
  else
    local lasts = lease > 0 and lease or q.lease
    s.n, s.c, s.l = session, nil, nil
    if consumer ~= '' then
      s.c = consumer
    end
    if lasts > 0 then
      s.l = now + lasts
    end
    local at = math.min(s.l or NEVER, ends)
    call('ZADD', key(q, 'f'), text(at), id)
    Q.due(q, at)
    Q.save(q, id, s)
  end
end
if not forget then
  if consumer ~= '' then
    if call('HINCRBY', key(q, 'n'), consumer, -#taken) > 0 then
      Q.queue_up(q, consumer)
    else
      call('ZREM', key(q, 'g'), consumer)
    end
  end
  Q.keep(request, ids)
end
return Q.finish(reply)
