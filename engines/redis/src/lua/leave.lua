-- ARGV: queue's number, consumer or nothing, then message and token of what nobody has seen.
local q = Q.open(ARGV[1])
if q and Q.reap(q) then
  for i = 3, #ARGV, 2 do
    local s = Q.state(q, ARGV[i])
    if s and s.t and text(s.t) == ARGV[i + 1] then
      Q.settle(q, ARGV[i], s, 'return', 0)
    end
  end
  if ARGV[2] ~= '' then
    Q.drop_consumer(q, ARGV[2])
  end
end
return Q.finish({ '+' })
