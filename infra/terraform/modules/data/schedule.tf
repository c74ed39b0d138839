# Jobs started from outside: EventBridge Scheduler sends the workers a word for each, always the same.
# Off unless external_schedule has jobs in it.

locals {
  # Jobs under other names than their intervals have.
  interval_names = { purge_stale = "purge" }

  # What the workers do among themselves. All of it or nothing: with BROKER_SCHEDULER=external they start no job at all.
  default_intervals_s = { sync = 600, expire = 300, cleanup = 300, purge_stale = 86400, census = 60, sweep = 600, refill = 5 }

  # Scheduler counts in minutes: refill, which is every 5 s, too.
  default_minutes = {
    for job, seconds in local.default_intervals_s : job => ceil(lookup(var.job_intervals_s, lookup(local.interval_names, job, job), seconds) / 60)
  }
  default_rates = { for job, minutes in local.default_minutes : job => minutes == 1 ? "rate(1 minute)" : "rate(${minutes} minutes)" }

  schedule = length(var.external_schedule) > 0 ? merge(local.default_rates, var.external_schedule) : {}

  # The census at its soonest. What a cron(...) means is not known here.
  census_rate    = regexall("^rate\\(([0-9]+) (minute|hour|day)s?\\)$", lookup(local.schedule, "census", local.default_rates.census))
  census_minutes = try(tonumber(local.census_rate[0][0]) * { minute = 1, hour = 60, day = 1440 }[local.census_rate[0][1]], 1)

  # common/messages/src/trigger.rs. No time and no id, not even Scheduler's context attributes: which firing a delivery is of,
  # SQS says (SentTimestamp), also when Scheduler sends one twice.
  firings = { for job in keys(local.schedule) : job => jsonencode({ v = 1, body = { kind = "start_job", job = job } }) }
}

resource "aws_scheduler_schedule_group" "this" {
  count = length(local.schedule) > 0 ? 1 : 0

  name = var.name
  tags = local.tags
}

resource "aws_scheduler_schedule" "this" {
  #checkov:skip=CKV_AWS_297:kms_key_arn is the caller's choice; messages name a job and hold nothing secret
  for_each = local.schedule

  name                = each.key
  group_name          = aws_scheduler_schedule_group.this[0].name
  description         = "Sandbox broker: starts ${each.key}"
  schedule_expression = each.value
  state               = var.paused ? "DISABLED" : "ENABLED"
  kms_key_arn         = var.kms_key_arn

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_sqs_queue.this["maintenance"].arn
    role_arn = aws_iam_role.scheduler[0].arn
    input    = local.firings[each.key]

    # The next tick sends again: an old one is of no use.
    retry_policy {
      maximum_event_age_in_seconds = 60
      maximum_retry_attempts       = 3
    }
  }
}

resource "aws_iam_role" "scheduler" {
  count = length(local.schedule) > 0 ? 1 : 0

  name                 = "${var.name}-scheduler"
  path                 = var.role_path
  permissions_boundary = var.permissions_boundary_arn
  tags                 = local.tags
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "scheduler.amazonaws.com" }
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_iam_role_policy" "scheduler" {
  count = length(local.schedule) > 0 ? 1 : 0

  name = "send"
  role = aws_iam_role.scheduler[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([{
      Sid      = "SendJobs"
      Effect   = "Allow"
      Action   = "sqs:SendMessage"
      Resource = aws_sqs_queue.this["maintenance"].arn
    }], local.key_statements)
  })
}
