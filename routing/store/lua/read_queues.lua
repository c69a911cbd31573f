-- Reads which flows wait, as of a position in the news, and the leases that have run out.
-- KEYS 1 index hash of flow to waiting jobs
-- KEYS 2 news stream of flows that begin to wait or are empty
-- KEYS 3 pulled sorted set of leases by when they run out
-- ARGV 1 most leases
-- RETURNS queues position leases tokens flows

local time = redis.call('TIME')
local now_ms = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
local overdue = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now_ms, 'LIMIT', 0, ARGV[1])
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local found = {'queues', newest and newest[1] or '0-0', tostring(#overdue)}
for _, token in ipairs(overdue) do
  found[#found + 1] = token
end
for _, part in ipairs(redis.call('HGETALL', KEYS[1])) do
  found[#found + 1] = part
end
return found
