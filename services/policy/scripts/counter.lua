-- SPDX-License-Identifier: Apache-2.0
-- Looks at counters that lease.lua keeps, begins them with what was used, or resets them.
--
-- KEYS[1]  what is known of durable counters, see lease.lua
-- KEYS[2..] counters
-- ARGV[1]  "view": nothing is changed
--          "reset": nothing is used any more; leases that live stay
--          "seed": a durable counter that is not there begins with what was used; of one that is
--          in doubt at least that was used
-- ARGV[2]  the burst of the rule (reset); what was used (seed)
-- ARGV[3..] begin and end of the calendar window that is open, us (0: there is none); of seed: how
--          long to keep it, ms
-- Returns  { held by leases, used of the calendar window, ... } per counter; -1 where there is none

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local function held(t, since)
    local sum = 0
    for i = 1, #t.e, 7 do
        if t.e[i + 6] ~= 1 and t.e[i + 5] > since then
            local gone = t.e[i + 3]
            if t.k ~= 'slots' then gone = gone + t.e[i + 2] end
            sum = sum + math.max(0, t.e[i + 1] - gone)
        end
    end
    return sum
end

local doubts = tonumber(string.match(redis.call('GET', KEYS[1]) or '', '^%d+ (%d+)') or '0')

local out = {}
for i = 2, #KEYS do
    local key = KEYS[i]
    local text = redis.call('GET', key)
    if not text and ARGV[1] == 'seed' then
        local from, to = tonumber(ARGV[3]), tonumber(ARGV[4])
        local t = { k = 'fixed', l = 0, a = now, b = 0, u = tonumber(ARGV[2]), d = 0, f = 0,
            w = { from, to, now }, y = doubts, e = {}, s = {} }
        redis.call('SET', key, cmsgpack.pack(t), 'PX', ARGV[5])
        out[#out + 1] = 0
        out[#out + 1] = t.u
    elseif not text then
        out[#out + 1] = -1
        out[#out + 1] = 0
    else
        local t = cmsgpack.unpack(text)
        if ARGV[1] == 'reset' then
            t.l = tonumber(ARGV[2]) - held(t, now)
            t.u, t.s, t.y = 0, {}, doubts
            redis.call('SET', key, cmsgpack.pack(t), 'KEEPTTL')
        elseif ARGV[1] == 'seed' and (t.y or 0) ~= doubts then
            -- its leases are of an epoch that is over: they will count as spent
            t.u, t.y = math.max(t.u, tonumber(ARGV[2]) - held(t, 0)), doubts
            redis.call('SET', key, cmsgpack.pack(t), 'KEEPTTL')
        end
        local over = t.k == 'fixed' and ARGV[1] == 'view' and tonumber(ARGV[3]) >= t.w[2]
        out[#out + 1] = over and 0 or held(t, now)
        out[#out + 1] = over and 0 or t.u
    end
end
return out
