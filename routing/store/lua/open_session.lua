-- Writes a new session, owned by the instance that holds its socket.
-- KEYS 1 meta hash
-- ARGV 1 instance id
-- ARGV 2 token_hash hex
-- ARGV 3 init JSON of what the session said of itself
-- ARGV 4 retention ms
-- RETURNS opened | exists

if redis.call('EXISTS', KEYS[1]) == 1 then
  return {'exists'}
end
redis.call('HSET', KEYS[1], 'epoch', '1', 'seq', '0', 'instance', ARGV[1],
  'token_hash', ARGV[2], 'init', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {'opened'}
