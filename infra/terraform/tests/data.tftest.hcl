# Table, queues and permissions, as a module of its own.

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
  name = "broker"
}

# Every `run` starts the provider anew, so one run has many assertions.
run "by_default" {
  module {
    source = "./modules/data"
  }

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

  assert {
    condition     = aws_dynamodb_table.this.deletion_protection_enabled && aws_dynamodb_table.this.point_in_time_recovery[0].enabled && aws_dynamodb_table.this.ttl[0].enabled
    error_message = "Deletion protection, point-in-time recovery and expiry must be on."
  }

  assert {
    condition     = endswith(local.restore_arn, "/broker-restored")
    error_message = "A restored table is examined before it is in use."
  }

  assert {
    condition     = aws_dynamodb_table.this.billing_mode == "PAY_PER_REQUEST"
    error_message = "On demand."
  }

  assert {
    condition     = output.census_minutes == 1 && local.default_rates == { sync = "rate(10 minutes)", expire = "rate(5 minutes)", cleanup = "rate(5 minutes)", purge_stale = "rate(1440 minutes)", census = "rate(1 minute)", sweep = "rate(10 minutes)", refill = "rate(1 minute)" }
    error_message = "What the workers do among themselves."
  }

  assert {
    condition     = length(aws_iam_role.scheduler) == 0 && !can(output.environment.BROKER_SCHEDULER)
    error_message = "Off by default."
  }

  assert {
    condition = alltrue([for policy in values(output.policies) : length([
      for statement in jsondecode(policy).Statement : statement
      if statement.Effect == "Deny" && contains(flatten([statement.Action]), "dynamodb:DeleteItem") && contains(flatten([statement.Resource]), aws_dynamodb_table.this.arn)
      && try(statement.Condition["ForAnyValue:StringLike"]["dynamodb:LeadingKeys"], "") == "AUDIT#*"
    ]) == 1])
    error_message = "Each role that may delete items must be denied those of the audit."
  }
}

run "once_the_restored_table_is_in_use_operators_read_the_old_one" {
  module {
    source = "./modules/data"
  }

  variables {
    table_name = "broker-restored"
  }

  assert {
    condition     = endswith(local.restore_arn, "/broker")
    error_message = "What was handed out since the restored moment is read from there."
  }
}

run "a_census_from_outside_says_its_own_interval" {
  command = plan

  module {
    source = "./modules/data"
  }

  variables {
    external_schedule = { census = "rate(3 hours)" }
    job_intervals_s   = { census = 600 }
  }

  assert {
    condition     = output.census_minutes == 180
    error_message = "The rate that is named wins."
  }
}

run "with_everything_set" {
  module {
    source = "./modules/data"
  }

  variables {
    external_schedule        = { sync = "rate(20 minutes)", refill = "rate(2 minutes)" }
    kms_key_arn              = "arn:aws:kms:eu-central-1:123456789012:key/1"
    table_name               = "broker-restored"
    restore_table_name       = "broker-2026-12-*"
    warm_throughput          = { read = 40000, write = 40000 }
    state_shards             = 32
    provider_rate            = 20
    job_intervals_s          = { sync = 1800, refill = 10, purge = 3600, census = 90 }
    role_path                = "/teams/labs/"
    permissions_boundary_arn = "arn:aws:iam::123456789012:policy/boundary"
  }

  assert {
    condition     = alltrue([for schedule in aws_scheduler_schedule.this : schedule.target[0].arn == aws_sqs_queue.this["maintenance"].arn])
    error_message = "Jobs go to the maintenance queue."
  }

  assert {
    condition     = { for job, schedule in aws_scheduler_schedule.this : job => schedule.target[0].input } == jsondecode(file("./firings.json"))
    error_message = "What is sent must be what the workers take, for every job."
  }

  assert {
    condition     = aws_scheduler_schedule.this["sync"].schedule_expression == "rate(20 minutes)" && aws_scheduler_schedule.this["expire"].schedule_expression == "rate(5 minutes)"
    error_message = "A job that is not named must run as often as the workers would let it: they start none then."
  }

  assert {
    condition     = aws_scheduler_schedule.this["purge_stale"].schedule_expression == "rate(60 minutes)" && aws_scheduler_schedule.this["census"].schedule_expression == "rate(2 minutes)"
    error_message = "Nor is it forgotten what job_intervals_s says of it, in whole minutes."
  }

  assert {
    condition     = output.census_minutes == 2
    error_message = "Alarms must know how often there is a census."
  }

  assert {
    condition     = aws_scheduler_schedule.this["refill"].schedule_expression == "rate(2 minutes)"
    error_message = "Every job can be named."
  }

  assert {
    condition     = output.environment.BROKER_SCHEDULER == "external"
    error_message = "Workers must leave the schedule alone then."
  }

  assert {
    condition = (
      aws_dynamodb_table.this.server_side_encryption[0].kms_key_arn == var.kms_key_arn
      && alltrue([for queue in concat(values(aws_sqs_queue.this), values(aws_sqs_queue.dead_letters)) : queue.kms_master_key_id == var.kms_key_arn])
    )
    error_message = "Table and queues."
  }

  assert {
    condition     = output.environment.BROKER_REPLY_QUEUE_KMS_KEY == var.kms_key_arn
    error_message = "The API makes the reply queues, and must encrypt them like the others."
  }

  assert {
    condition     = alltrue([for policy in values(local.policies) : strcontains(policy, "kms:GenerateDataKey")])
    error_message = "Who sends to an encrypted queue must use its key."
  }

  assert {
    condition     = aws_dynamodb_table.this.name == "broker-restored" && output.environment.BROKER_TABLE == "broker-restored" && output.prefix == "broker"
    error_message = "A restored table has another name; all else keeps its own."
  }

  assert {
    condition     = alltrue([for queue in aws_sqs_queue.this : startswith(queue.name, "broker-")])
    error_message = "The queues keep their names."
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(output.policies.operator).Statement : anytrue([for arn in statement.Resource : startswith(arn, "arn:aws:dynamodb:eu-central-1:123456789012:table/broker-2026-12-*")])
      if statement.Effect == "Allow" && length([for action in flatten([statement.Action]) : action if startswith(action, "dynamodb:")]) > 0
    ])
    error_message = "Whatever an operator may do to the table is needed on the restored one, too."
  }

  assert {
    condition = alltrue([
      for role in ["api", "worker"] : !strcontains(jsonencode([for statement in jsondecode(output.policies[role]).Statement : statement if statement.Effect == "Allow"]), "broker-2026-12")
    ])
    error_message = "API and workers use the table that table_name points at, no other."
  }

  assert {
    condition     = strcontains(output.warm_throughput_command, "WriteUnitsPerSecond=40000") && strcontains(output.warm_throughput_command, "StateIndex")
    error_message = "The command must warm table and index alike."
  }

  assert {
    condition = (
      output.environment.BROKER_STATE_SHARDS == "32" && output.environment.BROKER_PROVIDER_RATE == "20" && output.environment.BROKER_SYNC_EVERY_S == "1800"
    )
    error_message = "Each variable must reach the processes."
  }

  assert {
    condition     = aws_iam_role.scheduler[0].path == "/teams/labs/" && aws_iam_role.scheduler[0].permissions_boundary == var.permissions_boundary_arn && aws_iam_policy.operator.path == "/teams/labs/"
    error_message = "Path and boundary must reach every role."
  }
}
