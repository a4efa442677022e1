-- ARGV: request, then settlements.
local seen = Q.seen(ARGV[1])
if seen then
  return seen
end
local count = (#ARGV - 1) / SETTLE
local plan, refused = Q.plan_settles(2, count)
if not plan then
  return Q.finish(refused)
end
Q.apply_settles(plan)
return Q.finish(Q.keep(ARGV[1], { '+', count }))
