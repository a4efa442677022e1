local reply = { 'seen', text(now) }
for i = 1, #ARGV do
  see(reply, ARGV[i])
end
return reply
