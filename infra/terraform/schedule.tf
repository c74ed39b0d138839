# Jobs started from outside (SPEC, Schedule): EventBridge Scheduler sends the message that a worker would send.
# Off unless external_schedule has jobs in it.

resource "aws_scheduler_schedule_group" "this" {
  count = length(var.external_schedule) > 0 ? 1 : 0

  name = var.name
  tags = local.tags
}

resource "aws_scheduler_schedule" "this" {
  #checkov:skip=CKV_AWS_297:kms_key_arn is the caller's choice; messages name a job and hold nothing secret
  for_each = var.external_schedule

  name                = each.key
  group_name          = aws_scheduler_schedule_group.this[0].name
  description         = "Sandbox broker: starts ${each.key}"
  schedule_expression = each.value.rate
  state               = var.paused ? "DISABLED" : "ENABLED"
  kms_key_arn         = var.kms_key_arn

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_sqs_queue.this["maintenance"].arn
    role_arn = aws_iam_role.scheduler[0].arn
    input    = each.value.message

    # The next tick sends again: an old one is of no use.
    retry_policy {
      maximum_event_age_in_seconds = 60
      maximum_retry_attempts       = 3
    }
  }
}

resource "aws_iam_role" "scheduler" {
  count = length(var.external_schedule) > 0 ? 1 : 0

  name = "${var.name}-scheduler"
  tags = local.tags
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
  count = length(var.external_schedule) > 0 ? 1 : 0

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
