-- Lifts the epoch to one that a reader has seen, so that a store that lost its data never grants it again.
-- KEYS 1 epoch integer
-- ARGV 1 seen highest epoch the reader has seen
-- RETURNS raised | kept

if tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[1]) then
  return {'kept'}
end
redis.call('SET', KEYS[1], ARGV[1])
return {'raised'}
