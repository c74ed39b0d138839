# Alarms, dashboard and queries, as a module of its own.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name        = "broker"
  table_name  = "broker"
  queue_names = { requests = "broker-requests", maintenance = "broker-maintenance", requests-dlq = "broker-requests-dlq", maintenance-dlq = "broker-maintenance-dlq" }
}

run "on_kubernetes_queues_and_table_alone_are_watched" {
  command = plan

  module {
    source = "./modules/observability"
  }

  assert {
    condition     = length(aws_cloudwatch_log_metric_filter.this) == 0 && length(aws_cloudwatch_query_definition.this) == 0 && !contains(keys(aws_cloudwatch_metric_alarm.low), "few-workers")
    error_message = "Nothing of logs and tasks that are not there."
  }

  assert {
    condition     = length(setsubtract(["oldest-request", "dead-letters-requests", "table-throttled"], keys(aws_cloudwatch_metric_alarm.high))) == 0
    error_message = "Queues and table are watched all the same."
  }
}

run "of_a_shared_load_balancer_only_ours_counts" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    load_balancer = { arn_suffix = "app/shared/1", target_group_arn_suffix = "targetgroup/broker/1", shared = true }
    log_groups    = { api = "/broker/api", worker = "/broker/worker" }
  }

  assert {
    condition = alltrue(flatten([
      for alarm in concat(values(aws_cloudwatch_metric_alarm.math), values(aws_cloudwatch_metric_alarm.burn)) : [
        for query in alarm.metric_query : [
          for metric in query.metric : metric.dimensions == tomap({ LoadBalancer = "app/shared/1", TargetGroup = "targetgroup/broker/1" }) if metric.namespace == "AWS/ApplicationELB"
        ]
      ]
    ]))
    error_message = "What others on the load balancer are answered is not ours."
  }

  assert {
    condition = alltrue([
      for alarm in concat([aws_cloudwatch_metric_alarm.math["errors"]], [for window, alarm in aws_cloudwatch_metric_alarm.burn : alarm if startswith(window, "answers")]) :
      toset([for query in alarm.metric_query : query.id]) == toset(["judged", "requests", "target"])
    ])
    error_message = "The load balancer's own 5xx are everybody's."
  }
}

run "a_rare_census_is_not_missed" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    log_groups     = { api = "/broker/api", worker = "/broker/worker" }
    census_minutes = 30
    alarms         = { census_minutes = 5 }
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.low["pool-low"].period == 1800 && aws_cloudwatch_metric_alarm.low["census-silent"].period == 1800
    error_message = "The job's interval holds, whatever the alarms were told."
  }
}

run "with_all_parts" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    ecs                 = { cluster_name = "broker", service_names = { api = "api", worker = "worker" }, desired_tasks = { api = 2, worker = 2 } }
    load_balancer       = { arn_suffix = "app/broker/1", target_group_arn_suffix = "targetgroup/broker/1" }
    log_groups          = { api = "/broker/api", worker = "/broker/worker" }
    collector_namespace = "SandboxBroker/broker/process"
    alarms = {
      actions        = ["arn:aws:sns:eu-central-1:123456789012:on-call"]
      ticket_actions = ["arn:aws:sns:eu-central-1:123456789012:tickets"]
      census_minutes = 100
    }
  }

  assert {
    condition = alltrue([
      for alarm in concat(values(aws_cloudwatch_metric_alarm.high), values(aws_cloudwatch_metric_alarm.low), values(aws_cloudwatch_metric_alarm.math), values(aws_cloudwatch_composite_alarm.burn)) :
      length(alarm.alarm_actions) == 1 && strcontains(alarm.alarm_description, ": see ")
    ])
    error_message = "Every alarm must act and say where in the runbook to look."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.math["pool-prefix"].alarm_actions == toset(["arn:aws:sns:eu-central-1:123456789012:tickets"])
    error_message = "A prefix that matches nothing wakes nobody."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.math["pool-empty"].alarm_actions == toset(["arn:aws:sns:eu-central-1:123456789012:on-call"])
    error_message = "An empty pool does."
  }

  assert {
    condition = alltrue([
      for alarm in concat(values(aws_cloudwatch_metric_alarm.high), values(aws_cloudwatch_metric_alarm.math)) :
      alarm.evaluation_periods > alarm.datapoints_to_alarm
    ])
    error_message = "Alarms on what is published late are M of N."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.low["pool-low"].period == 6000 && aws_cloudwatch_metric_alarm.low["census-silent"].period == 6000
    error_message = "A period must hold a census, or the alarm has no data most of the time."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.low["census-silent"].treat_missing_data == "breaching"
    error_message = "Figures that nobody renews are an alarm of their own."
  }

  assert {
    condition     = toset(keys(aws_cloudwatch_composite_alarm.burn)) == toset(["answers-fast", "answers-slow", "latency-fast", "latency-slow"])
    error_message = "Answers and latency, fast and slow."
  }

  assert {
    condition     = abs(aws_cloudwatch_metric_alarm.burn["answers-fast-long"].threshold - 1.44) < 0.001 && aws_cloudwatch_metric_alarm.burn["latency-slow-long"].threshold == 6
    error_message = "14.4 times 0.1 %, and 6 times 1 %."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.high["latency"].metric_name == "AllocateLatency" && aws_cloudwatch_metric_alarm.high["latency"].threshold == 2000 && strcontains(aws_cloudwatch_log_metric_filter.this["AllocateLatency"].pattern, "$.may_wait NOT EXISTS")
    error_message = "A call that may wait in a line is as long as its caller asked: it must not count as slow."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.high["dead-letters-waiting"].period == 6000 && aws_cloudwatch_metric_alarm.high["pending-deletion"].period == 6000
    error_message = "Standing letters and pending deletions, as often as there is a census."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.low["none-ready-worker"].dimensions.service == "worker" && aws_cloudwatch_metric_alarm.low["none-ready-api"].dimensions.prefix == "broker"
    error_message = "Processes that live and are not ready, by prefix and service."
  }
}
