-- Adds a dead letter with its payload once; a letter that is there already stays as it is.
-- KEYS 1 letters stream
-- KEYS 2 index hash of entry ids by letter id
-- KEYS 3 payloads hash by letter id
-- ARGV 1 letter_id id
-- ARGV 2 letter JSON without the payload
-- ARGV 3 payload bytes
-- RETURNS buried entry_id length | known length

if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then
  return {'known', tostring(redis.call('XLEN', KEYS[1]))}
end
local entry = redis.call('XADD', KEYS[1], '*', 'id', ARGV[1], 'letter', ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], entry)
redis.call('HSET', KEYS[3], ARGV[1], ARGV[3])
return {'buried', entry, tostring(redis.call('XLEN', KEYS[1]))}
