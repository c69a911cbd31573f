-- Keeps what operators wish of the pools and tells the leader, if it differs from what is kept.
-- KEYS 1 wishes JSON
-- KEYS 2 changes stream
-- ARGV 1 wishes JSON
-- ARGV 2 by name
-- RETURNS set | same

if redis.call('GET', KEYS[1]) == ARGV[1] then
  return {'same'}
end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', '1000', '*', 'kind', 'wanted', 'what', 'wishes', 'by', ARGV[2])
return {'set'}
