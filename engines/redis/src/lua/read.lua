-- ARGV: keys of entries. Gives the time and how they are.
local reply = { clock }
for i = 1, #ARGV do
  reply[i + 1] = call('GET', ARGV[i])
end
return reply
