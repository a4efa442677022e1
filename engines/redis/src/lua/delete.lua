-- ARGV: name, if unused, if empty, request.
local seen = Q.seen(ARGV[4])
if seen then
  return seen
end
local q = Q.find(ARGV[1])
if not q or not Q.reap(q) then
  return Q.finish(refusal('not-found', ARGV[1]))
end
if ARGV[2] == '1' and call('HLEN', key(q, 'c')) > 0 then
  return Q.finish(refusal('in-use', q.name))
end
if ARGV[3] == '1' and call('HLEN', key(q, 'm')) > 0 then
  return Q.finish(refusal('not-empty', q.name))
end
return Q.finish(Q.keep(ARGV[4], { '+', Q.delete(q) }))
