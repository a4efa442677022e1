-- ARGV: queue, consumer, session, its ttl, prefetch, whether alone, whether to forget.
local q = Q.find(ARGV[1])
if not q or not Q.reap(q) then
  return Q.finish(refusal('not-found', ARGV[1]))
end
local consumer, c = ARGV[2], key(q, 'c')
if call('HEXISTS', c, consumer) == 1 then
  return Q.finish({ '+', q.id })
end
local alone = ARGV[6] == '1'
if q.alone or (alone and call('HLEN', c) > 0) then
  return Q.finish(refusal('in-use', q.name))
end
local ends = Q.hold(q, ARGV[3], tonumber(ARGV[4]))
local serial = call('HINCRBY', key(q, ''), 'consumers', 1)
call('HSET', c, consumer, cmsgpack.pack({ n = ARGV[3], q = serial }))
call('HSET', key(q, 'n'), consumer, ARGV[5])
call('ZADD', key(q, 'o'), text(ends), consumer)
if ARGV[7] ~= '1' then -- who forgets may have a full basket, and waits for nobody
  Q.queue_up(q, consumer)
end
Q.due(q, ends)
if alone then
  call('HSET', key(q, ''), 'alone', consumer)
end
return Q.finish({ '+', q.id })
