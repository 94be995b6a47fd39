-- SPDX-License-Identifier: Apache-2.0
-- Looks at counters that lease.lua keeps, begins them with what was used, or resets them.
--
-- KEYS     counters
-- ARGV[1]  "view": nothing is changed
--          "reset": nothing is used any more; leases that live stay
--          "seed": a durable counter that is not there begins with what was used
-- ARGV[2]  the burst of the rule (reset); what was used (seed)
-- ARGV[3..] of seed: begin and end of the window, us; how long to keep it, ms
-- Returns  { held by leases, used of the calendar window, ... } per counter; -1 where there is none

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local function held(t)
    local sum = 0
    for i = 1, #t.e, 7 do
        if t.e[i + 6] ~= 1 and t.e[i + 5] > now then
            local gone = t.e[i + 3]
            if t.k ~= 'slots' then gone = gone + t.e[i + 2] end
            sum = sum + math.max(0, t.e[i + 1] - gone)
        end
    end
    return sum
end

local out = {}
for _, key in ipairs(KEYS) do
    local text = redis.call('GET', key)
    if not text and ARGV[1] == 'seed' then
        local from, to = tonumber(ARGV[3]), tonumber(ARGV[4])
        local t = { k = 'fixed', l = 0, a = now, b = 0, u = tonumber(ARGV[2]), d = 0, f = 0,
            w = { from, to, now }, e = {}, s = {} }
        redis.call('SET', key, cmsgpack.pack(t), 'PX', ARGV[5])
        out[#out + 1] = 0
        out[#out + 1] = t.u
    elseif not text then
        out[#out + 1] = -1
        out[#out + 1] = 0
    else
        local t = cmsgpack.unpack(text)
        if ARGV[1] == 'reset' then
            t.l = tonumber(ARGV[2]) - held(t)
            t.u, t.s = 0, {}
            redis.call('SET', key, cmsgpack.pack(t), 'KEEPTTL')
        end
        out[#out + 1] = held(t)
        out[#out + 1] = t.u
    end
end
return out
