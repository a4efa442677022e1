-- ARGV: session, its ttl. What is not known has nothing here.
if call('ZSCORE', P .. ':sessions', ARGV[1]) then
  call('ZADD', P .. ':sessions', text(now + tonumber(ARGV[2])), ARGV[1])
end
return { '+' }
