-- ARGV: name.
local q = Q.find(ARGV[1])
if not q or not Q.reap(q) then
  return Q.finish(refusal('not-found', ARGV[1]))
end
return Q.finish({ '+', Q.view(q) })
