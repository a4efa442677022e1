-- ARGV: lower and upper end, place, how many.
local reply = { '+' }
local names = call('ZRANGEBYLEX', P .. ':index:q', ARGV[1], ARGV[2], 'LIMIT', ARGV[3], ARGV[4])
for _, name in ipairs(names) do
  local q = Q.find(name)
  if q then
    reply[#reply + 1] = Q.view(q)
  end
end
return reply
