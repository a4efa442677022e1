-- ARGV: name, whether.
local q = Q.find(ARGV[1])
if not q then
  return refusal('not-found', ARGV[1])
end
call('HSET', key(q, ''), 'paused', ARGV[2])
rings[q.id] = true
return Q.finish({ '+' })
