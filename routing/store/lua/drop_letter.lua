-- Removes one dead letter with its payload; the second time it finds none.
-- KEYS 1 letters stream
-- KEYS 2 index hash of entry ids by letter id
-- KEYS 3 payloads hash by letter id
-- ARGV 1 letter_id id
-- RETURNS dropped | unknown

local entry = redis.call('HGET', KEYS[2], ARGV[1])
if not entry then
  return {'unknown'}
end
redis.call('XDEL', KEYS[1], entry)
-- Last: a cluster whose slot moves refuses a key that is not there, and these may remove theirs.
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return {'dropped'}
