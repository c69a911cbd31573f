-- Writes a connected session again if the store has lost it; a known one only makes sure of its last seq.
-- KEYS 1 meta hash
-- ARGV 1 instance id
-- ARGV 2 token_hash hex
-- ARGV 3 init JSON of what the session said of itself
-- ARGV 4 epoch of the instance's hold on it
-- ARGV 5 seq last terminal message its client was sent
-- ARGV 6 retention ms
-- RETURNS restored | known

local seq = redis.call('HGET', KEYS[1], 'seq')
if seq then
  if tonumber(seq) < tonumber(ARGV[5]) then
    redis.call('HSET', KEYS[1], 'seq', ARGV[5])
  end
  return {'known'}
end
redis.call('HSET', KEYS[1], 'instance', ARGV[1], 'token_hash', ARGV[2], 'init', ARGV[3],
  'epoch', ARGV[4], 'seq', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return {'restored'}
