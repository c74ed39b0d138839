# Logs, what is counted in them, and the questions that are asked of them at night. The lines are those of
# common/runtime/src/telemetry.rs: flat JSON with `message`, `level`, `request_id` and the fields of the event.

locals {
  # Counted in log lines: which log, which lines, which value.
  metrics_in_logs = {
    # A wait in a line that ends as it was asked to is no failure.
    ServerErrors = { log = "api", pattern = "{ $.message = \"request\" && $.status >= 500 && $.outcome != \"cancelled\" && $.outcome != \"waited_in_vain\" }", value = "1" }
    Shed         = { log = "api", pattern = "{ $.message = \"request\" && $.outcome = \"overloaded\" }", value = "1" }
    # A wait that ran out, whatever its status; a call that may wait in a line is held for as long as its caller asked.
    StillQueued     = { log = "api", pattern = "{ $.message = \"request\" && $.outcome = \"still_queued\" && $.may_wait NOT EXISTS }", value = "1" }
    PoolEmpty       = { log = "api", pattern = "{ $.message = \"request\" && ($.outcome = \"no_sandboxes\" || $.outcome = \"no_prefix_match\") }", value = "1" }
    PrefixEmpty     = { log = "api", pattern = "{ $.message = \"request\" && $.outcome = \"no_prefix_match\" }", value = "1" }
    Allocated       = { log = "api", pattern = "{ $.message = \"request\" && $.outcome = \"created\" }", value = "1" }
    AllocateLatency = { log = "api", pattern = "{ $.message = \"request\" && $.route = \"/v1/allocate\" && $.latency_ms = * && $.may_wait NOT EXISTS }", value = "$.latency_ms" }
    DeadLetters     = { log = "worker", pattern = "{ $.message = \"dead letter\" }", value = "1" }
    WorkerErrors    = { log = "worker", pattern = "{ $.level = \"ERROR\" }", value = "1" }
    # Said when it begins and every half minute while it lasts.
    Unhealthy     = { log = "worker", pattern = "{ ($.message = \"health changed\" || $.message = \"no messages are received\") && $.healthy IS FALSE }", value = "1" }
    PoolAvailable = { log = "worker", pattern = "{ $.message = \"census\" && $.available = * }", value = "$.available" }
    # Of the same line: levels, renewed by each census.
    PendingDeletion    = { log = "worker", pattern = "{ $.message = \"census\" && $.pending_deletion = * }", value = "$.pending_deletion" }
    DeadLettersWaiting = { log = "worker", pattern = "{ $.message = \"census\" && $.dead_letters = * }", value = "$.dead_letters" }
    RefillStopped      = { log = "worker", pattern = "{ $.message = \"refill stopped: the hook does not answer\" || $.message = \"refill stopped: nothing arrives that its hook has had made\" }", value = "1" }
    SyncRefused        = { log = "worker", pattern = "{ $.message = \"job ended early\" && $.job = \"sync\" && $.outcome = \"refused\" }", value = "1" }
    QuarantineFull     = { log = "worker", pattern = "{ $.message = \"refused by its gate; it stays arriving, because too much of its flavour is in quarantine\" }", value = "1" }
    BreakerOpened      = { log = "worker", pattern = "{ $.message = \"the provider fails: not asked for a minute\" }", value = "1" }
  }

  saved_queries = {
    "slowest requests" = {
      logs  = ["api"]
      query = "filter message = 'request' | sort latency_ms desc | limit 50 | display @timestamp, request_id, route, status, latency_ms, outcome, track"
    }
    "errors by outcome" = {
      logs  = ["api"]
      query = "filter message = 'request' and status >= 400 | stats count(*) as requests, latest(track) as last_track by outcome, status, route | sort requests desc"
    }
    "latency by route" = {
      logs  = ["api"]
      query = "filter message = 'request' | stats count(*) as requests, pct(latency_ms, 50) as p50, pct(latency_ms, 99) as p99, max(latency_ms) as worst by route, bin(1m)"
    }
    "one request everywhere" = {
      logs  = ["api", "worker"]
      query = "filter request_id = 'PASTE-REQUEST-ID' | sort @timestamp asc | display @timestamp, @log, message, kind, outcome, status, latency_ms, track"
    }
    "one track" = {
      logs  = ["api", "worker"]
      query = "filter track = 'PASTE-TRACK-ID' | sort @timestamp asc | display @timestamp, @log, message, kind, outcome, status, request_id"
    }
    "jobs" = {
      logs  = ["worker"]
      query = "filter message = 'job done' | sort @timestamp desc | limit 100 | display @timestamp, job, outcome, found, changed, skipped, failed, duration_ms"
    }
    "dead letters" = {
      logs  = ["worker"]
      query = "filter message = 'dead letter' | stats count(*) as letters, latest(reason) as last_reason by code"
    }
    "who uses which token" = {
      logs  = ["api"]
      query = "filter message = 'request' and ispresent(token) | stats count(*) as requests, max(@timestamp) as last_used by token"
    }
  }
}

resource "aws_cloudwatch_log_metric_filter" "this" {
  for_each = local.has_logs ? local.metrics_in_logs : {}

  name           = "${var.name}-${each.key}"
  log_group_name = var.log_groups[each.value.log]
  pattern        = each.value.pattern

  metric_transformation {
    name      = each.key
    namespace = local.namespace
    value     = each.value.value
    unit      = each.value.value == "$.latency_ms" ? "Milliseconds" : "Count"
    # A count of what did not happen is 0; a level that was not told is unknown.
    default_value = each.value.value == "1" ? "0" : null
  }
}

resource "aws_cloudwatch_query_definition" "this" {
  for_each = var.save_queries && local.has_logs ? local.saved_queries : {}

  name            = "${var.name}/${each.key}"
  log_group_names = [for log in each.value.logs : var.log_groups[log]]
  query_string    = each.value.query
}
