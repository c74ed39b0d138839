# Alarms that need a person. Each alarm says what it means and which section of the runbook (infra/docs/RUNBOOK.md) to read.
#
# Every alarm is M of N: CloudWatch publishes late, and a point that arrives after its minute was judged must still count.
# No FILL on a metric that is always published: the newest point would be the made-up one (infra/check/scaling.py).

locals {
  queue_dimensions = { for name, queue in var.queue_names : name => { QueueName = queue } }
  alb_dimensions   = { LoadBalancer = local.alb_suffix }
  api_dimensions   = { LoadBalancer = local.alb_suffix, TargetGroup = try(var.load_balancer.target_group_arn_suffix, "") }
  table_dimensions = { TableName = var.table_name }
  task_dimensions = {
    for service in ["api", "worker"] : service => { ClusterName = try(var.ecs.cluster_name, ""), ServiceName = try(var.ecs.service_names[service], "") }
  }
  process_dimensions = { for service in ["api", "worker"] : service => { prefix = var.name, service = service } }

  # A level that the census tells is looked at as often as there is a census.
  census_s = 60 * max(var.alarms.census_minutes, var.census_minutes)

  # How long callers wait. A call that may wait in a line (max_wait_s) is held for as long as its caller asked; logs tell which
  # calls those are, the balancer does not.
  latencies = {
    logs     = { namespace = local.namespace, metric = "AllocateLatency", dimensions = {}, unit = 1000 }
    balancer = { namespace = "AWS/ApplicationELB", metric = "TargetResponseTime", dimensions = local.api_dimensions, unit = 1 }
  }
  latency = local.latencies[local.has_logs ? "logs" : "balancer"]

  # One metric above one threshold: `of` = [M, N] points of `period` seconds. `ticket`: it can wait until the morning.
  alarms = merge(
    {
      oldest-request = {
        when       = true, ticket = false, text = "Requests wait: see Backlog growing", namespace = "AWS/SQS", metric = "ApproximateAgeOfOldestMessage", stat = "Maximum",
        dimensions = local.queue_dimensions["requests"], above = var.alarms.oldest_request_s, of = [3, 5], period = 60
      }
      oldest-maintenance = {
        when       = true, ticket = true, text = "Jobs wait: see Backlog growing", namespace = "AWS/SQS", metric = "ApproximateAgeOfOldestMessage", stat = "Maximum",
        dimensions = local.queue_dimensions["maintenance"], above = var.alarms.oldest_maintenance_s, of = [3, 5], period = 60
      }
      dead-letters = {
        when       = local.has_logs, ticket = true, text = "Messages could not be processed: see Dead letters", namespace = local.namespace, metric = "DeadLetters", stat = "Sum",
        dimensions = {}, above = 0, of = [1, 3], period = 60
      }
      dead-letters-requests = {
        when       = true, ticket = true, text = "Requests lie in their dead-letter queue, which is not drained: see Dead letters", namespace = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible", stat = "Minimum",
        dimensions = local.queue_dimensions["requests-dlq"], above = 0, of = [3, 5], period = 60
      }
      dead-letters-maintenance = {
        when       = true, ticket = true, text = "Jobs lie in their dead-letter queue, which is not drained: see Dead letters", namespace = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible", stat = "Minimum",
        dimensions = local.queue_dimensions["maintenance-dlq"], above = 0, of = [3, 5], period = 60
      }
      dead-letters-waiting = {
        when       = local.has_logs, ticket = true, text = "Dead letters in the table wait to be replayed or discarded: see Dead letters", namespace = local.namespace, metric = "DeadLettersWaiting", stat = "Minimum",
        dimensions = {}, above = 0, of = [2, 3], period = local.census_s
      }
      pending-deletion = {
        when       = local.has_logs, ticket = true, text = "More sandboxes wait to be deleted than the provider's rate (BROKER_PROVIDER_RATE) works off: see Provider down", namespace = local.namespace, metric = "PendingDeletion", stat = "Minimum",
        dimensions = {}, above = var.alarms.pending_deletion_max, of = [6, 7], period = max(300, local.census_s)
      }
      breaker = {
        when       = local.has_logs, ticket = true, text = "The provider fails and is left alone for a while: see Provider down", namespace = local.namespace, metric = "BreakerOpened", stat = "Sum",
        dimensions = {}, above = 0, of = [1, 3], period = 60
      }
      # Said at each try of the hook, an hour apart at most, and with each ticket that nothing arrives for: half an hour and a sync apart.
      refill-stopped = {
        when       = local.has_logs, ticket = false, text = "No new sandboxes are asked for, the hook of refill does not answer or brings nothing: see Refill", namespace = local.namespace, metric = "RefillStopped", stat = "Sum",
        dimensions = {}, above = 0, of = [1, 10], period = 600
      }
      # Said by each sync.
      sync-refused = {
        when       = local.has_logs, ticket = true, text = "The provider's list would make too much of the pool stale, nothing was changed: see Pool low", namespace = local.namespace, metric = "SyncRefused", stat = "Sum",
        dimensions = {}, above = 0, of = [1, 3], period = 600
      }
      # Said of each sandbox that a gate refuses meanwhile, every five minutes.
      quarantine-full = {
        when       = local.has_logs, ticket = false, text = "A gate refuses sandboxes and a fifth of their flavour is in quarantine: see Quarantine", namespace = local.namespace, metric = "QuarantineFull", stat = "Sum",
        dimensions = {}, above = 0, of = [1, 3], period = 300
      }
      shed = {
        when       = local.has_logs, ticket = false, text = "Requests were refused because too many were pending: see Backlog growing", namespace = local.namespace, metric = "Shed", stat = "Sum",
        dimensions = {}, above = 0, of = [2, 4], period = 60
      }
      worker-away = {
        when       = local.has_logs, ticket = false, text = "Workers receive nothing: their table is away, their clock is not trusted, or the pool is paused: see Nothing works", namespace = local.namespace, metric = "Unhealthy", stat = "Sum",
        dimensions = {}, above = 0, of = [3, 5], period = 60
      }
      latency = {
        when       = local.has_alb || local.has_logs, ticket = false, text = "One answer in a hundred is slower than it should be: see Slow answers", namespace = local.latency.namespace, metric = local.latency.metric, stat = "p99",
        dimensions = local.latency.dimensions, above = local.latency.unit * var.alarms.latency_p99_s, of = [5, 7], period = 60
      }
      unhealthy-api = {
        when       = local.has_alb, ticket = false, text = "API tasks are not ready: see Nothing works", namespace = "AWS/ApplicationELB", metric = "UnHealthyHostCount", stat = "Minimum",
        dimensions = local.api_dimensions, above = 0, of = [5, 7], period = 60
      }
      table-throttled = {
        when       = true, ticket = true, text = "The table refuses writes: see Slow answers", namespace = "AWS/DynamoDB", metric = "WriteThrottleEvents", stat = "Sum",
        dimensions = local.table_dimensions, above = 0, of = [2, 4], period = 60
      }
      table-read-throttled = {
        when       = true, ticket = true, text = "The table refuses reads: see Slow answers", namespace = "AWS/DynamoDB", metric = "ReadThrottleEvents", stat = "Sum",
        dimensions = local.table_dimensions, above = 0, of = [2, 4], period = 60
      }
      index-throttled = {
        when       = true, ticket = true, text = "The index refuses writes, and with it the table: see Slow answers", namespace = "AWS/DynamoDB", metric = "WriteThrottleEvents", stat = "Sum",
        dimensions = merge(local.table_dimensions, { GlobalSecondaryIndexName = "StateIndex" }), above = 0, of = [2, 4], period = 60
      }
    },
    merge([for service in ["api", "worker"] : {
      "${service}-cpu" = {
        when       = local.has_ecs, ticket = true, text = "The ${service} tasks are short of CPU: see Slow answers", namespace = "AWS/ECS", metric = "CPUUtilization", stat = "Average",
        dimensions = local.task_dimensions[service], above = var.alarms.cpu_percent, of = [10, 12], period = 60
      }
      "${service}-memory" = {
        when       = local.has_ecs, ticket = true, text = "The ${service} tasks are short of memory: see Slow answers", namespace = "AWS/ECS", metric = "MemoryUtilization", stat = "Maximum",
        dimensions = local.task_dimensions[service], above = var.alarms.memory_percent, of = [5, 7], period = 60
      }
    }]...),
  )

  # What falls too low. A level that is not told is not known to be fine; its absence is an alarm of its own.
  low_alarms = {
    pool-low = {
      when       = local.has_logs, ticket = false, text = "Few sandboxes are left: see Pool low", namespace = local.namespace, metric = "PoolAvailable", stat = "Minimum",
      dimensions = {}, below = var.alarms.pool_available_min, of = [2, 3], period = local.census_s, missing = "missing"
    }
    census-silent = {
      when       = local.has_logs, ticket = true, text = "The pool is not counted, so its numbers are old: see Frozen figures", namespace = local.namespace, metric = "PoolAvailable", stat = "SampleCount",
      dimensions = {}, below = 1, of = [5, 5], period = local.census_s, missing = "breaching"
    }
    none-ready-api = {
      when       = local.has_process, ticket = false, text = "API processes run and none of them is ready: see No worker receives", namespace = coalesce(var.collector_namespace, "-"), metric = "broker_ready", stat = "Maximum",
      dimensions = local.process_dimensions["api"], below = 1, of = [3, 5], period = 60, missing = "missing"
    }
    none-ready-worker = {
      when       = local.has_process, ticket = false, text = "Workers run and none of them is ready, or the pool is paused: see No worker receives", namespace = coalesce(var.collector_namespace, "-"), metric = "broker_ready", stat = "Maximum",
      dimensions = local.process_dimensions["worker"], below = 1, of = [3, 5], period = 60, missing = "missing"
    }
    few-api = {
      when       = local.has_ecs, ticket = false, text = "Fewer API tasks run than should: see Nothing works", namespace = "ECS/ContainerInsights", metric = "RunningTaskCount", stat = "Maximum",
      dimensions = local.task_dimensions["api"], below = try(var.ecs.desired_tasks["api"], 0), of = [5, 7], period = 60, missing = "missing"
    }
    few-workers = {
      when       = local.has_ecs, ticket = false, text = "Fewer workers run than should: see Nothing works", namespace = "ECS/ContainerInsights", metric = "RunningTaskCount", stat = "Maximum",
      dimensions = local.task_dimensions["worker"], below = try(var.ecs.desired_tasks["worker"], 0), of = [5, 7], period = 60, missing = "missing"
    }
  }

  # Of a balancer that others use as well only what reached our targets is ours: its own 5xx, before it has chosen any, are not told
  # apart by whose host was asked for.
  own_balancer       = !try(var.load_balancer.shared, false)
  answers_dimensions = local.own_balancer ? tomap(local.alb_dimensions) : tomap(local.api_dimensions)
  failed             = local.own_balancer ? "(FILL(target, 0) + FILL(balancer, 0))" : "FILL(target, 0)"
  # Two windows per objective: the long one says that it matters, the short one that it goes on.
  failed_percent = "IF(requests >= ${var.alarms.slo_min_requests}, 100 * ${local.failed} / requests, 0)"
  slow_percent   = "IF(timed >= ${var.alarms.slo_min_requests}, 100 - fast, 0)"
  burn_rates = {
    fast = { factor = 14.4, long_s = 3600, short_s = 300, ticket = false }
    slow = { factor = 6, long_s = 21600, short_s = 1800, ticket = true }
  }
  objectives = {
    answers = { budget = 100 - var.alarms.slo_availability_percent, expression = local.failed_percent, text = "the objective for answers without 5xx: see Nothing works" }
    latency = { budget = 100 - var.alarms.slo_fast_percent, expression = local.slow_percent, text = "the objective for fast answers: see Slow answers" }
  }
  burn_windows = merge(flatten([for objective, of in local.objectives : [
    for speed, rate in local.burn_rates : [for window in ["long", "short"] : {
      "${objective}-${speed}-${window}" = {
        expression = of.expression, above = min(100, rate.factor * of.budget), period = window == "long" ? rate.long_s : rate.short_s
      }
    }]
  ]])...)

  answers = {
    requests = { namespace = "AWS/ApplicationELB", metric = "RequestCount", stat = "Sum", dimensions = local.answers_dimensions }
    # Published only when there are some, so a missing one is none.
    target   = { namespace = "AWS/ApplicationELB", metric = "HTTPCode_Target_5XX_Count", stat = "Sum", dimensions = local.answers_dimensions }
    balancer = { namespace = "AWS/ApplicationELB", metric = "HTTPCode_ELB_5XX_Count", stat = "Sum", dimensions = local.alb_dimensions }
    timed    = { namespace = local.latency.namespace, metric = local.latency.metric, stat = "SampleCount", dimensions = local.latency.dimensions }
    fast     = { namespace = local.latency.namespace, metric = local.latency.metric, stat = "PR(:${local.latency.unit * var.alarms.latency_p99_s})", dimensions = local.latency.dimensions }
  }

  # Several metrics, one expression.
  math_alarms = {
    errors = {
      when       = local.has_alb, ticket = false, text = "More than ${var.alarms.error_percent} % of requests fail with 5xx: see Nothing works"
      expression = "IF(requests >= ${var.alarms.error_min_requests}, 100 * ${local.failed} / requests, 0)"
      metrics    = { for id in local.own_balancer ? ["requests", "target", "balancer"] : ["requests", "target"] : id => local.answers[id] }, above = var.alarms.error_percent, of = [3, 5], period = 60
    }
    nobody-receives = {
      when       = true, ticket = false, text = "Requests wait and no worker receives: see No worker receives"
      expression = "IF(visible > 0, IF(received < 1, visible, 0), 0)"
      metrics = {
        visible  = { namespace = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible", stat = "Minimum", dimensions = local.queue_dimensions["requests"] }
        received = { namespace = "AWS/SQS", metric = "NumberOfMessagesReceived", stat = "Sum", dimensions = local.queue_dimensions["requests"] }
      }
      above = 0, of = [3, 5], period = 60
    }
    waits-run-out = {
      when       = local.has_alb && local.has_logs, ticket = false, text = "More than ${var.alarms.waits_run_out_percent} % of calls get no answer within their wait: see Backlog growing"
      expression = "IF(requests >= ${var.alarms.error_min_requests}, 100 * FILL(ran_out, 0) / requests, 0)"
      metrics = {
        requests = local.answers.requests
        ran_out  = { namespace = local.namespace, metric = "StillQueued", stat = "Sum", dimensions = {} }
      }
      above = var.alarms.waits_run_out_percent, of = [3, 5], period = 60
    }
    # Refused while the pool is empty. A 409 for a prefix that matches nothing, with sandboxes left, is pool-prefix.
    pool-empty = {
      when       = local.has_logs, ticket = false, text = "Allocations were refused because no sandbox was free: see Pool low"
      expression = "IF(FILL(available, REPEAT) < 1, refused, 0)"
      metrics = {
        available = { namespace = local.namespace, metric = "PoolAvailable", stat = "Minimum", dimensions = {} }
        refused   = { namespace = local.namespace, metric = "PoolEmpty", stat = "Sum", dimensions = {} }
      }
      above = 0, of = [1, 3], period = local.census_s
    }
    pool-prefix = {
      when       = local.has_logs, ticket = true, text = "Allocations are refused again and again although sandboxes are free, so no name has their prefix: see Pool low"
      expression = "IF(FILL(available, REPEAT) < 1, 0, refused)"
      metrics = {
        available = { namespace = local.namespace, metric = "PoolAvailable", stat = "Minimum", dimensions = {} }
        refused   = { namespace = local.namespace, metric = "PrefixEmpty", stat = "Sum", dimensions = {} }
      }
      above = 0, of = [10, 15], period = local.census_s
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "high" {
  for_each = { for name, alarm in local.alarms : name => alarm if alarm.when }

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.text
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = startswith(each.value.stat, "p") ? null : each.value.stat
  extended_statistic  = startswith(each.value.stat, "p") ? each.value.stat : null
  period              = each.value.period
  datapoints_to_alarm = each.value.of[0]
  evaluation_periods  = each.value.of[1]
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.above
  # Nothing was counted: nothing happened.
  treat_missing_data = "notBreaching"
  actions_enabled    = !var.paused
  alarm_actions      = each.value.ticket ? local.ticket_actions : local.actions
  ok_actions         = var.alarms.ok_actions
  tags               = local.tags
}

resource "aws_cloudwatch_metric_alarm" "low" {
  for_each = { for name, alarm in local.low_alarms : name => alarm if alarm.when }

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.text
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.stat
  period              = each.value.period
  datapoints_to_alarm = each.value.of[0]
  evaluation_periods  = each.value.of[1]
  comparison_operator = "LessThanThreshold"
  threshold           = each.value.below
  treat_missing_data  = each.value.missing
  actions_enabled     = !var.paused
  alarm_actions       = each.value.ticket ? local.ticket_actions : local.actions
  ok_actions          = var.alarms.ok_actions
  tags                = local.tags
}

resource "aws_cloudwatch_metric_alarm" "math" {
  for_each = { for name, alarm in local.math_alarms : name => alarm if alarm.when }

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.text
  datapoints_to_alarm = each.value.of[0]
  evaluation_periods  = each.value.of[1]
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.above
  treat_missing_data  = "notBreaching"
  actions_enabled     = !var.paused
  alarm_actions       = each.value.ticket ? local.ticket_actions : local.actions
  ok_actions          = var.alarms.ok_actions
  tags                = local.tags

  metric_query {
    id          = "judged"
    label       = each.key
    expression  = each.value.expression
    return_data = true
  }

  dynamic "metric_query" {
    for_each = each.value.metrics
    content {
      id          = metric_query.key
      return_data = false

      metric {
        namespace   = metric_query.value.namespace
        metric_name = metric_query.value.metric
        stat        = metric_query.value.stat
        period      = each.value.period
        dimensions  = metric_query.value.dimensions
      }
    }
  }
}

# One window of one burn rate; only the pair below notifies.
resource "aws_cloudwatch_metric_alarm" "burn" {
  for_each = local.has_alb ? local.burn_windows : {}

  alarm_name          = "${var.name}-burn-${each.key}"
  alarm_description   = "One window of the alarm ${var.name}-burn-${trimsuffix(trimsuffix(each.key, "-long"), "-short")}, no action for it alone"
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.above
  treat_missing_data  = "notBreaching"
  tags                = local.tags

  metric_query {
    id          = "judged"
    label       = each.key
    expression  = each.value.expression
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { for id, metric in local.answers : id => metric if strcontains(each.value.expression, id) }
    content {
      id          = metric_query.key
      return_data = false

      metric {
        namespace   = metric_query.value.namespace
        metric_name = metric_query.value.metric
        stat        = metric_query.value.stat
        period      = each.value.period
        dimensions  = metric_query.value.dimensions
      }
    }
  }
}

resource "aws_cloudwatch_composite_alarm" "burn" {
  for_each = local.has_alb ? merge([for objective, of in local.objectives : {
    for speed, rate in local.burn_rates : "${objective}-${speed}" => { text = of.text, ticket = rate.ticket, factor = rate.factor }
  }]...) : {}

  alarm_name        = "${var.name}-burn-${each.key}"
  alarm_description = "Errors use up the budget of 30 days ${each.value.factor} times too fast, ${each.value.text}"
  alarm_rule = join(" AND ", [
    for window in ["long", "short"] : "ALARM(\"${aws_cloudwatch_metric_alarm.burn["${each.key}-${window}"].alarm_name}\")"
  ])
  actions_enabled = !var.paused
  alarm_actions   = each.value.ticket ? local.ticket_actions : local.actions
  ok_actions      = var.alarms.ok_actions
  tags            = local.tags
}
