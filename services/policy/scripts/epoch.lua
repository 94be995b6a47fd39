-- SPDX-License-Identifier: Apache-2.0
-- Reads the epoch, or begins a new one.
-- KEYS[1]  the epoch's key
-- KEYS[2]  what is known of durable counters: "<lost> <doubts> <doubted>", see lease.lua. They were lost
--          when an epoch begins that is neither the first nor finds one before it; they are in doubt
--          when the one before began on another run of Redis, which may have granted what this one
--          has never heard of
-- ARGV     the value that must stand there ("": none) for a new one to begin; the new epoch's id ("":
--          only read); whether it is the first: 1 or 0; the run_id of this Redis
-- Returns  { now, value }: what stands there then
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local value = redis.call('GET', KEYS[1]) or ''
if ARGV[2] ~= '' and value == ARGV[1] then
    value = ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. string.format('%.0f', now) .. ' ' .. ARGV[4]
    redis.call('SET', KEYS[1], value)
    local lost, doubts, doubted = string.match(redis.call('GET', KEYS[2]) or '', '^(%d+) ?(%d*) ?(%d*)$')
    local before = string.match(ARGV[1], '(%S+)$')
    local stamp = string.format('%.0f', now)
    if not before and ARGV[3] == '0' then
        redis.call('SET', KEYS[2], stamp .. ' 0 0')
    elseif before and before ~= ARGV[4] then
        doubts = string.format('%.0f', (tonumber(doubts or '') or 0) + 1)
        redis.call('SET', KEYS[2], (lost or '0') .. ' ' .. doubts .. ' ' .. stamp)
    end
end
return { now, value }
