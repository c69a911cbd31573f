-- Ends one attempt of a job: the next attempt may begin, or none is left. An older attempt's failure changes nothing.
-- KEYS 1 job hash
-- ARGV 1 attempt number that failed
-- ARGV 2 max_attempts count
-- ARGV 3 reason text for the history
-- RETURNS again attempt | exhausted history | stale attempt | ended state | unknown

local job = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'node', 'history')
if not job[1] then
  return {'unknown'}
end
if job[1] ~= 'queued' and job[1] ~= 'assigned' and job[1] ~= 'running' then
  return {'ended', job[1]}
end
if job[2] ~= ARGV[1] then
  return {'stale', job[2]}
end
local entry = cjson.encode({attempt = tonumber(ARGV[1]), node = job[3], reason = ARGV[3]})
local history = job[4] and (job[4] .. ',' .. entry) or entry
if tonumber(job[2]) >= tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'history', history)
  return {'exhausted', history}
end
local attempt = string.format('%d', tonumber(job[2]) + 1)
redis.call('HSET', KEYS[1], 'state', 'queued', 'attempt', attempt, 'node', '', 'history', history)
return {'again', attempt}
