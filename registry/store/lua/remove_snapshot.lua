-- Removes a node's snapshot and tells so, unless a newer connection has written one.
-- KEYS 1 nodes hash
-- KEYS 2 changes stream
-- KEYS 3 sequence integer, counts changes without a gap
-- ARGV 1 node_id id
-- ARGV 2 connection_epoch epoch
-- RETURNS removed | stale

local before = redis.call('HGET', KEYS[1], ARGV[1])
if before and cjson.decode(before).connection_epoch > tonumber(ARGV[2]) then
  return {'stale'}
end
redis.call('HDEL', KEYS[1], ARGV[1])
local n = redis.call('INCR', KEYS[3])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', '10000', '*', 'n', n, 'gone', ARGV[1], 'epoch', ARGV[2])
return {'removed'}
