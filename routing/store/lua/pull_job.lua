-- Takes the first jobs of several flows, each under a lease: by priority, then the tenant that had least service, then age.
-- KEYS 1 index hash of flow to waiting jobs
-- KEYS 2 pools hash of pool to waiting jobs
-- KEYS 3 news stream of flows that begin to wait or are empty
-- KEYS 4 pulled sorted set of leases by when they run out
-- KEYS 5 served hash of tenant to the service it had by its weight
-- KEYS 6.. flows sorted sets of job|attempt by time of acceptance
-- ARGV 1 names JSON list of the flows' names, in the order of their keys
-- ARGV 2 weights JSON list of their tenants' weights, in the same order
-- ARGV 3 count jobs at most
-- ARGV 4 lease ms until a job that is not settled may be put back
-- RETURNS pulled empty tokens

local names, weights = cjson.decode(ARGV[1]), cjson.decode(ARGV[2])
local count, time = tonumber(ARGV[3]), redis.call('TIME')
local due_ms = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[4]))

local flows, tenants, seen = {}, {}, {}
for i, name in ipairs(names) do
  local pool, priority, tenant = string.match(name, '^([^|]*)|[^|]*|(%d)|[^|]*|(.*)$')
  flows[i] = {
    key = KEYS[5 + i], name = name, pool = pool, tenant = tenant, weight = weights[i],
    priority = tonumber(priority), length = redis.call('ZCARD', KEYS[5 + i]), taken = 0,
    jobs = redis.call('ZRANGE', KEYS[5 + i], 0, count - 1, 'WITHSCORES'),
  }
  if flows[i].length > 0 and not seen[tenant] then
    seen[tenant] = true
    tenants[#tenants + 1] = tenant
  end
end

-- What each had. One that is new begins with the least of the others. Nobody is further behind the
-- first than a job of weight 1 and one more: so much it catches up, whatever other nodes gave.
local service, changed, most, least = {}, {}, nil, nil
if #tenants > 1 then
  for i, had in ipairs(redis.call('HMGET', KEYS[5], unpack(tenants))) do
    service[tenants[i]] = tonumber(had or nil)
    most = math.max(most or 0, tonumber(had or '0'))
  end
  for tenant, had in pairs(service) do
    service[tenant] = math.max(had, most - 2)
    least = math.min(least or service[tenant], service[tenant])
  end
  for _, tenant in ipairs(tenants) do
    if not service[tenant] then
      service[tenant], changed[tenant] = least or 0, true
    end
  end
end

local function goes_before(one, other)
  if one.priority ~= other.priority then
    return one.priority > other.priority
  end
  local had, other_had = service[one.tenant] or 0, service[other.tenant] or 0
  if had ~= other_had then
    return had < other_had
  end
  return tonumber(one.jobs[2 * one.taken + 2]) < tonumber(other.jobs[2 * other.taken + 2])
end

local tokens = {}
while #tokens < count do
  local first, contended
  for _, flow in ipairs(flows) do
    if flow.taken < flow.length and flow.jobs[2 * flow.taken + 1] then
      contended = contended or (first and first.tenant ~= flow.tenant)
      if not first or goes_before(flow, first) then
        first = flow
      end
    end
  end
  if not first then
    break
  end
  local at = 2 * first.taken
  first.taken = first.taken + 1
  tokens[#tokens + 1] = string.format('%s|%.0f|%s', first.jobs[at + 1], first.jobs[at + 2], first.name)
  if contended then
    service[first.tenant] = service[first.tenant] + 1 / first.weight
    changed[first.tenant] = true
  end
end

-- What is read and added comes first: a cluster whose slot moves refuses a key that is gone.
local empty, gone, waiting = {}, {}, redis.call('HLEN', KEYS[1])
for _, token in ipairs(tokens) do
  redis.call('ZADD', KEYS[4], due_ms, token)
end
for tenant in pairs(changed) do
  redis.call('HSET', KEYS[5], tenant, string.format('%.6f', service[tenant]))
end
for i, flow in ipairs(flows) do
  if flow.taken == flow.length then
    empty[#empty + 1], gone[#gone + 1] = i, flow.name
    if flow.taken > 0 then
      redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'flow', flow.name, 'waits', '0')
    end
  elseif flow.taken > 0 then
    redis.call('HSET', KEYS[1], flow.name, flow.length - flow.taken)
  end
end
local forget = {}
if waiting > 0 and redis.call('HLEN', KEYS[5]) > waiting + 1000 then
  local waits = {}
  for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
    waits[string.match(name, '^[^|]*|[^|]*|%d|[^|]*|(.*)$')] = true
  end
  for _, tenant in ipairs(redis.call('HKEYS', KEYS[5])) do
    forget[#forget + 1] = not waits[tenant] and tenant or nil
  end
end

for i = 1, #forget, 1000 do
  redis.call('HDEL', KEYS[5], unpack(forget, i, math.min(i + 999, #forget)))
end
for _, flow in ipairs(flows) do
  if flow.taken > 0 then
    if redis.call('HINCRBY', KEYS[2], flow.pool, -flow.taken) < 1 then
      redis.call('HDEL', KEYS[2], flow.pool)
    end
    local members = {}
    for i = 1, flow.taken do
      members[i] = flow.jobs[2 * i - 1]
    end
    redis.call('ZREM', flow.key, unpack(members))
  end
end
-- With the last one that waits all is forgotten: nobody is owed anything.
if #gone > 0 and redis.call('HDEL', KEYS[1], unpack(gone)) == waiting then
  redis.call('DEL', KEYS[5])
end
return {'pulled', table.concat(empty, ','), unpack(tokens)}
