-- Takes the first job of several queues: the highest priority of all, then the oldest.
-- KEYS 1 index hash of queue name to length
-- KEYS 2.. queues sorted sets of job ids by rank
-- ARGV 1 names JSON list of the queues' names, in the order of their keys
-- RETURNS pulled job_id name | empty

local names = cjson.decode(ARGV[1])
local first, rank
for i = 2, #KEYS do
  local head = redis.call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')
  if not head[1] then
    redis.call('HDEL', KEYS[1], names[i - 1])
  elseif not rank or tonumber(head[2]) < rank then
    first, rank = i, tonumber(head[2])
  end
end
if not first then
  return {'empty'}
end
-- Counted first: a cluster whose slot moves refuses a key that is not there, as after the last pop.
local length = redis.call('ZCARD', KEYS[first]) - 1
local job_id = redis.call('ZPOPMIN', KEYS[first])[1]
if length == 0 then
  redis.call('HDEL', KEYS[1], names[first - 1])
else
  redis.call('HSET', KEYS[1], names[first - 1], length)
end
return {'pulled', job_id, names[first - 1]}
