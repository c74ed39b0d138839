# What the module promises, on a provider that is a stand-in: plans and applies without an account.

mock_provider "aws" {
  source = "./tests/mocks"
}

override_resource {
  target = aws_sqs_queue.this["requests"]
  values = {
    arn = "arn:aws:sqs:eu-central-1:123456789012:broker-requests"
    url = "https://sqs.eu-central-1.amazonaws.com/123456789012/broker-requests"
    id  = "https://sqs.eu-central-1.amazonaws.com/123456789012/broker-requests"
  }
}

override_resource {
  target = aws_sqs_queue.this["maintenance"]
  values = {
    arn = "arn:aws:sqs:eu-central-1:123456789012:broker-maintenance"
    url = "https://sqs.eu-central-1.amazonaws.com/123456789012/broker-maintenance"
    id  = "https://sqs.eu-central-1.amazonaws.com/123456789012/broker-maintenance"
  }
}

override_resource {
  target = aws_sqs_queue.dead_letters["requests"]
  values = {
    arn = "arn:aws:sqs:eu-central-1:123456789012:broker-requests-dlq"
    url = "https://sqs.eu-central-1.amazonaws.com/123456789012/broker-requests-dlq"
    id  = "https://sqs.eu-central-1.amazonaws.com/123456789012/broker-requests-dlq"
  }
}

override_resource {
  target = aws_sqs_queue.dead_letters["maintenance"]
  values = {
    arn = "arn:aws:sqs:eu-central-1:123456789012:broker-maintenance-dlq"
    url = "https://sqs.eu-central-1.amazonaws.com/123456789012/broker-maintenance-dlq"
    id  = "https://sqs.eu-central-1.amazonaws.com/123456789012/broker-maintenance-dlq"
  }
}

variables {
  name                     = "broker"
  image                    = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/broker@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  vpc_id                   = "vpc-1"
  private_subnet_ids       = ["subnet-1", "subnet-2"]
  load_balancer_subnet_ids = ["subnet-3", "subnet-4"]
  private_route_table_ids  = ["rtb-1"]
  certificate_arn          = "arn:aws:acm:eu-central-1:123456789012:certificate/1"
}

run "dead_letters_outlive_their_source_and_arrive_after_the_promised_receives" {
  command = plan

  assert {
    condition     = alltrue([for queue in aws_sqs_queue.dead_letters : queue.message_retention_seconds == 1209600])
    error_message = "Dead letters are kept for 14 days."
  }

  assert {
    condition     = alltrue([for queue in aws_sqs_queue.this : queue.message_retention_seconds == 345600])
    error_message = "Messages are kept for 4 days."
  }

  assert {
    condition     = local.queues == { requests = 5, maintenance = 10 }
    error_message = "5 receives of a request, 10 of a job."
  }
}

run "redrive_policies_point_at_the_right_queues_both_ways" {
  assert {
    condition = alltrue([
      for name, queue in aws_sqs_queue.this :
      jsondecode(queue.redrive_policy) == { deadLetterTargetArn = aws_sqs_queue.dead_letters[name].arn, maxReceiveCount = local.queues[name] }
    ])
    error_message = "Each source must redrive to its own dead-letter queue."
  }

  assert {
    condition = alltrue([
      for name, allow in aws_sqs_queue_redrive_allow_policy.this :
      jsondecode(allow.redrive_allow_policy).sourceQueueArns == [aws_sqs_queue.this[name].arn]
    ])
    error_message = "Each dead-letter queue must admit its source only."
  }
}

run "the_table_is_protected" {
  command = plan

  assert {
    condition     = aws_dynamodb_table.this.deletion_protection_enabled && aws_dynamodb_table.this.point_in_time_recovery[0].enabled && aws_dynamodb_table.this.ttl[0].enabled
    error_message = "Deletion protection, point-in-time recovery and expiry must be on."
  }

  assert {
    condition     = aws_dynamodb_table.this.billing_mode == "PAY_PER_REQUEST"
    error_message = "On demand."
  }
}

run "scaling_in_kills_no_work" {
  command = plan

  variables {
    drain_s = 90
  }

  assert {
    condition     = local.stop_timeout_s > local.lame_duck_s + var.drain_s && local.stop_timeout_s <= 120
    error_message = "ECS must wait longer than the drain lasts, and Fargate waits 120 s at most."
  }

  assert {
    condition     = local.environment.BROKER_DRAIN_S == "90" && tonumber(aws_lb_target_group.api.deregistration_delay) == local.lame_duck_s + 90
    error_message = "Process and load balancer must drain as long as is said."
  }

  assert {
    condition     = alltrue([for service in [aws_ecs_service.api, aws_ecs_service.worker] : service.deployment_minimum_healthy_percent == 100])
    error_message = "A deployment must never run fewer tasks than are wanted."
  }
}

run "a_task_works_on_as_many_threads_as_it_has_cpus" {
  command = plan

  variables {
    api    = { cpu = 4096, memory = 8192 }
    worker = { cpu = 256 }
  }

  assert {
    condition     = local.environments.api.BROKER_THREADS == "4" && local.environments.worker.BROKER_THREADS == "1"
    error_message = "Threads must follow from the CPUs of each task."
  }
}

run "the_stop_timeout_reaches_the_containers" {
  assert {
    condition     = alltrue([for task in aws_ecs_task_definition.this : jsondecode(task.container_definitions)[0].stopTimeout == 90])
    error_message = "drain_s 60 must give 90."
  }

  assert {
    condition = alltrue([for task in aws_ecs_task_definition.this : (
      jsondecode(task.container_definitions)[0].readonlyRootFilesystem
      && jsondecode(task.container_definitions)[0].user == "65532:65532"
      && jsondecode(task.container_definitions)[0].linuxParameters.capabilities.drop == ["ALL"]
    )])
    error_message = "Containers run without root, without capabilities, on a read-only file system."
  }
}

run "only_the_api_sees_tokens_and_none_stands_in_plain_text" {
  assert {
    condition     = [for secret in jsondecode(aws_ecs_task_definition.this["api"].container_definitions)[0].secrets : secret.name] == ["BROKER_ADMIN_TOKENS", "BROKER_TRACK_TOKENS"]
    error_message = "The API's tokens must come from secrets."
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.this["worker"].container_definitions)[0].secrets == []
    error_message = "A worker needs no token of ours."
  }

  assert {
    condition     = !strcontains(aws_iam_role_policy.execution["worker"].policy, "secretsmanager")
    error_message = "A worker that has no secret must not read any."
  }

  assert {
    condition     = alltrue([for task in aws_ecs_task_definition.this : length([for variable in jsondecode(task.container_definitions)[0].environment : variable if strcontains(variable.name, "TOKEN")]) == 0])
    error_message = "A token in plain text."
  }
}

run "the_backlog_rule_divides_by_running_workers_and_never_by_zero" {
  command = plan

  assert {
    condition     = local.backlog_expression == "(FILL(visible, 0) + FILL(inflight, 0)) / IF(FILL(running, 0) > 1, FILL(running, 0), 1)"
    error_message = "infra/check/scaling.py evaluates the expression against the rule; change both on purpose."
  }

  assert {
    condition     = aws_appautoscaling_policy.backlog[0].target_tracking_scaling_policy_configuration[0].target_value == 100
    error_message = "100 messages a worker by default."
  }

  assert {
    condition     = aws_appautoscaling_target.this["worker"].min_capacity == 2 && aws_appautoscaling_target.this["worker"].max_capacity == 10
    error_message = "2 to 10 workers by default."
  }
}

run "paused_means_zero_and_keeps_the_data" {
  command = plan

  variables {
    paused = true
  }

  assert {
    condition     = alltrue([for target in aws_appautoscaling_target.this : target.min_capacity == 0 && target.max_capacity == 0])
    error_message = "Both services must go to zero."
  }

  assert {
    condition     = aws_dynamodb_table.this.deletion_protection_enabled && length(aws_sqs_queue.this) == 2
    error_message = "Table and queues must stay."
  }

  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.low : !alarm.actions_enabled])
    error_message = "Nobody is to be woken by a pause."
  }
}

run "without_autoscaling_nothing_of_it_is_made" {
  command = plan

  variables {
    autoscaling = false
  }

  assert {
    condition     = length(aws_appautoscaling_target.this) == 0 && length(aws_cloudwatch_metric_alarm.scale_on_age) == 0
    error_message = "No target, no policy, no alarm that scales."
  }
}

run "a_platform_behind_one_address_is_not_stopped_by_default" {
  command = plan

  assert {
    condition     = one([for rule in aws_wafv2_web_acl.this[0].rule : rule.statement[0].rate_based_statement[0].limit if rule.name == "flood"]) >= 300000
    error_message = "1,000 requests a second are 300,000 in five minutes."
  }
}

run "alarms_tell_somebody" {
  command = plan

  variables {
    alarms = { actions = ["arn:aws:sns:eu-central-1:123456789012:on-call"] }
  }

  assert {
    condition = alltrue([
      for alarm in concat(values(aws_cloudwatch_metric_alarm.high), values(aws_cloudwatch_metric_alarm.low), values(aws_cloudwatch_metric_alarm.dead_letters), [aws_cloudwatch_metric_alarm.errors]) :
      alarm.alarm_actions == toset(["arn:aws:sns:eu-central-1:123456789012:on-call"]) && strcontains(alarm.alarm_description, ": see ")
    ])
    error_message = "Every alarm must act and say where in the runbook to look."
  }
}

run "the_scheduler_is_an_option" {
  variables {
    external_schedule = { sync = "rate(20 minutes)" }
  }

  assert {
    condition     = alltrue([for schedule in aws_scheduler_schedule.this : schedule.target[0].arn == aws_sqs_queue.this["maintenance"].arn])
    error_message = "Jobs go to the maintenance queue."
  }

  # The same file is read by the tests of common/messages/src/trigger.rs, and sent to real workers by tests/e2e/maintenance/external.rs.
  assert {
    condition     = { for job, schedule in aws_scheduler_schedule.this : job => schedule.target[0].input } == jsondecode(file("firings.json"))
    error_message = "What is sent must be what the workers take, for every job."
  }

  assert {
    condition     = aws_scheduler_schedule.this["sync"].schedule_expression == "rate(20 minutes)" && aws_scheduler_schedule.this["expire"].schedule_expression == "rate(5 minutes)"
    error_message = "A job that is not named must run as often as the workers would let it: they start none then."
  }

  assert {
    condition     = local.environment.BROKER_SCHEDULER == "external"
    error_message = "Workers must leave the schedule alone then."
  }
}

run "without_a_schedule_no_role_and_no_setting_is_made" {
  command = plan

  assert {
    condition     = length(aws_iam_role.scheduler) == 0 && !can(local.environment.BROKER_SCHEDULER)
    error_message = "Off by default."
  }
}

run "a_key_of_ones_own_reaches_everything_that_rests" {
  variables {
    kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/1"
  }

  assert {
    condition = (
      aws_dynamodb_table.this.server_side_encryption[0].kms_key_arn == var.kms_key_arn
      && alltrue([for queue in concat(values(aws_sqs_queue.this), values(aws_sqs_queue.dead_letters)) : queue.kms_master_key_id == var.kms_key_arn])
      && alltrue([for secret in aws_secretsmanager_secret.this : secret.kms_key_id == var.kms_key_arn])
      && alltrue([for group in aws_cloudwatch_log_group.this : group.kms_key_id == var.kms_key_arn])
    )
    error_message = "Table, queues, secrets and logs."
  }

  assert {
    condition     = alltrue([for policy in values(local.policies) : strcontains(policy, "kms:GenerateDataKey")])
    error_message = "Who sends to an encrypted queue must use its key."
  }
}
