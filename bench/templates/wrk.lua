-- Prints wrk's summary as one line of JSON.  With an argument "rules" each request is for another rule.
local requests = {}

function init(args)
  if args[1] ~= "rules" then return end
  for n = 0, 999 do
    requests[#requests + 1] = wrk.format("GET", "/", {Host = string.format("h%04d.bench.example", n)})
    requests[#requests + 1] = wrk.format("GET", string.format("/p%04d/x", n), {Host = "other.example"})
  end
  request = function()
    return requests[math.random(#requests)]
  end
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    '\nJSON {"requests": %d, "seconds": %.4f, "errors": %d, "not_2xx": %d, "p50_ms": %.3f, "p99_ms": %.3f}\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.timeout, e.status,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
