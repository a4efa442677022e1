-- ARGV: name, how many at most, request. Gives how many went and how many are left.
local seen = Q.seen(ARGV[3])
if seen then
  return seen
end
local q = Q.find(ARGV[1])
if not q or not Q.reap(q) then
  return Q.finish(refusal('not-found', ARGV[1]))
end
local ids = call('ZRANGE', key(q, 'r'), 0, tonumber(ARGV[2]) - 1)
for _, id in ipairs(ids) do
  local s = Q.state(q, id)
  Q.unready(q, id, s)
  Q.remove(q, id, s)
end
Q.sum(q, 'purged', #ids)
return Q.finish(Q.keep(ARGV[3], { '+', #ids, call('ZCARD', key(q, 'r')) }))
