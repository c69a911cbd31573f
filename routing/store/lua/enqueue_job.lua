-- Puts an attempt of a job into its flow, once, unless its pool's queue takes no more of its tenant.
-- KEYS 1 index hash of flow to waiting jobs
-- KEYS 2 pools hash of pool to waiting jobs
-- KEYS 3 news stream of flows that begin to wait or are empty
-- KEYS 4 flow sorted set of job|attempt by time of acceptance
-- ARGV 1 name flow
-- ARGV 2 member job|attempt
-- ARGV 3 accepted_ms server time the job was accepted at: its age, also when it waits again
-- ARGV 4 limit jobs of a pool, or 0 for no limit
-- ARGV 5 weights JSON object of tenant to weight, where it is not 1
-- RETURNS queued | full waiting oldest_ms

if redis.call('ZSCORE', KEYS[4], ARGV[2]) then
  return {'queued'}
end
local parts = '^([^|]*)|[^|]*|%d|[^|]*|(.*)$'
local pool, tenant = string.match(ARGV[1], parts)
local total, limit = tonumber(redis.call('HGET', KEYS[2], pool) or '0'), tonumber(ARGV[4])
if limit > 0 and total >= limit then
  -- Full for a tenant that has its share of the limit by its weight, or for all at twice the limit.
  local weights, waiting = cjson.decode(ARGV[5]), {[tenant] = 0}
  local flows = redis.call('HGETALL', KEYS[1])
  for i = 1, #flows, 2 do
    local of_pool, of_tenant = string.match(flows[i], parts)
    if of_pool == pool then
      waiting[of_tenant] = (waiting[of_tenant] or 0) + tonumber(flows[i + 1])
    end
  end
  local sum = 0
  for name in pairs(waiting) do
    sum = sum + (weights[name] or 1)
  end
  if total >= 2 * limit or waiting[tenant] * sum >= limit * (weights[tenant] or 1) then
    local oldest, time = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES'), redis.call('TIME')
    local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
    return {'full', tostring(total), string.format('%d', oldest[2] and now_ms - oldest[2] or 0)}
  end
end
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[2])
redis.call('HINCRBY', KEYS[2], pool, 1)
if redis.call('HINCRBY', KEYS[1], ARGV[1], 1) == 1 then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'flow', ARGV[1], 'waits', '1')
end
return {'queued'}
