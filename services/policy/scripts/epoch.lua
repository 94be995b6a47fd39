-- SPDX-License-Identifier: Apache-2.0
-- Reads the epoch, or begins a new one.
-- KEYS[1]  the epoch's key
-- KEYS[2]  when durable counters were lost last: set when an epoch begins that is neither the first nor
--          finds one before it
-- ARGV     the value that must stand there ("": none) for a new one to begin; the new epoch's id ("":
--          only read); whether it is the first: 1 or 0; the run_id of this Redis
-- Returns  { now, value }: what stands there then
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local value = redis.call('GET', KEYS[1]) or ''
if ARGV[2] ~= '' and value == ARGV[1] then
    value = ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. string.format('%.0f', now) .. ' ' .. ARGV[4]
    redis.call('SET', KEYS[1], value)
    if ARGV[1] == '' and ARGV[3] == '0' then redis.call('SET', KEYS[2], string.format('%.0f', now)) end
end
return { now, value }
