-- Writes a node's snapshot and its change notice together, unless a newer connection has written one.
-- KEYS 1 nodes hash
-- KEYS 2 changes stream
-- KEYS 3 sequence integer, counts changes without a gap
-- ARGV 1 node_id id
-- ARGV 2 connection_epoch epoch
-- ARGV 3 revision counter of this connection
-- ARGV 4 snapshot JSON
-- RETURNS put | stale

local before = redis.call('HGET', KEYS[1], ARGV[1])
if before then
  local known = cjson.decode(before)
  local epoch, revision = tonumber(ARGV[2]), tonumber(ARGV[3])
  if known.connection_epoch > epoch or (known.connection_epoch == epoch and known.revision > revision) then
    return {'stale'}
  end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[4])
local n = redis.call('INCR', KEYS[3])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', '10000', '*', 'n', n, 'put', ARGV[4])
return {'put'}
