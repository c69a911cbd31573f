-- Ends one attempt of a job, once: the next attempt may begin, or none is left. An older attempt's failure, or another node's word, changes nothing.
-- KEYS 1 job hash
-- ARGV 1 attempt number that failed
-- ARGV 2 node id whose word it is, or '' for the scheduler itself
-- ARGV 3 max_attempts count
-- ARGV 4 reason text for the history
-- ARGV 5 code the node's own, or ''
-- ARGV 6 message the node's own
-- RETURNS again attempt | exhausted history | stale attempt | ended state | unknown

local job = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'node', 'history', 'failed')
if not job[1] then
  return {'unknown'}
end
if job[1] ~= 'queued' and job[1] ~= 'assigned' and job[1] ~= 'running' then
  return {'ended', job[1]}
end
if job[2] ~= ARGV[1] or (ARGV[2] ~= '' and job[3] ~= ARGV[2]) then
  return {'stale', job[2]}
end
if job[5] == ARGV[1] then
  -- The last attempt, again: whoever came first may have died before it ended the job.
  return {'exhausted', job[4]}
end
local entry = {attempt = tonumber(ARGV[1]), node = job[3], reason = ARGV[4]}
if ARGV[5] ~= '' then
  entry.code, entry.message = ARGV[5], ARGV[6]
end
local before = job[4] and job[4] ~= '' and job[4] .. ',' or ''
local history = before .. cjson.encode(entry)
if tonumber(job[2]) >= tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[1], 'history', history, 'failed', ARGV[1])
  return {'exhausted', history}
end
local attempt = string.format('%d', tonumber(job[2]) + 1)
redis.call('HSET', KEYS[1], 'state', 'queued', 'attempt', attempt, 'node', '', 'history', history)
return {'again', attempt}
