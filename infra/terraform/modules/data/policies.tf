# What each role may do: every action that the code performs, on the resource that it performs it on, and no other.
# infra/check/iam/compare.py compares these documents with the calls that real processes
# were seen making (infra/check/iam/calls.txt).

locals {
  queue_arns = merge(
    { for name, queue in aws_sqs_queue.this : name => queue.arn },
    { for name, queue in aws_sqs_queue.dead_letters : "${name}-dlq" => queue.arn },
  )
  reply_queues_arn = "${trimsuffix(aws_sqs_queue.this["requests"].arn, "-requests")}-replies-*"
  table_arn        = aws_dynamodb_table.this.arn
  index_arn        = "${aws_dynamodb_table.this.arn}/index/StateIndex"

  # A restored table is examined and reconciled under its own name, before table_name points at it. Once it does, the other one is
  # the old table: what it handed out is read from there.
  restored    = "${var.name}-restored"
  restore_arn = "${split("/", local.table_arn)[0]}/${coalesce(var.restore_table_name, local.table_name == local.restored ? var.name : local.restored)}"

  # What an operator did stays on record for a year: no process removes a line of the audit.
  keep_the_audit = {
    Sid       = "KeepTheAudit"
    Effect    = "Deny"
    Action    = ["dynamodb:DeleteItem", "dynamodb:PartiQLDelete"]
    Resource  = [local.table_arn, local.restore_arn]
    Condition = { "ForAnyValue:StringLike" = { "dynamodb:LeadingKeys" = "AUDIT#*" } }
  }

  # With a key of one's own, each reader and writer of queues and table must use it.
  key_statements = [for arn in var.kms_key_arn[*] : {
    Sid      = "UseTheKey"
    Effect   = "Allow"
    Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
    Resource = arn
  }]

  policies = {
    api = jsonencode({
      Version = "2012-10-17"
      Statement = concat([
        local.keep_the_audit,
        {
          Sid      = "FindQueues"
          Effect   = "Allow"
          Action   = "sqs:GetQueueUrl"
          Resource = sort(values(local.queue_arns))
        },
        {
          Sid      = "AskForWorkAndJobs"
          Effect   = "Allow"
          Action   = "sqs:SendMessage"
          Resource = [local.queue_arns["requests"], local.queue_arns["maintenance"]]
        },
        {
          Sid      = "SeeTheQueue"
          Effect   = "Allow"
          Action   = "sqs:GetQueueAttributes"
          Resource = local.queue_arns["requests"]
        },
        {
          Sid      = "OwnReplyQueue"
          Effect   = "Allow"
          Action   = ["sqs:CreateQueue", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:DeleteQueue"]
          Resource = local.reply_queues_arn
        },
        {
          Sid      = "RequestsInstancesAndAdmin"
          Effect   = "Allow"
          Action   = ["dynamodb:BatchGetItem", "dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:Scan", "dynamodb:UpdateItem"]
          Resource = local.table_arn
        },
        {
          Sid      = "Quarantine"
          Effect   = "Allow"
          Action   = "dynamodb:Query"
          Resource = local.index_arn
        },
      ], local.key_statements)
    })

    worker = jsonencode({
      Version = "2012-10-17"
      Statement = concat([
        local.keep_the_audit,
        {
          Sid      = "FindAndMeasureQueues"
          Effect   = "Allow"
          Action   = ["sqs:GetQueueUrl", "sqs:GetQueueAttributes"]
          Resource = sort(values(local.queue_arns))
        },
        {
          Sid      = "TakeRequestsAndJobs"
          Effect   = "Allow"
          Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"]
          Resource = [local.queue_arns["requests"], local.queue_arns["maintenance"]]
        },
        {
          Sid      = "DrainDeadLetters"
          Effect   = "Allow"
          Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"]
          Resource = [local.queue_arns["requests-dlq"], local.queue_arns["maintenance-dlq"]]
        },
        {
          Sid    = "AnswerPlanAndDeadLetter"
          Effect = "Allow"
          Action = "sqs:SendMessage"
          Resource = [
            local.reply_queues_arn,
            # A message of a newer version is put back as a copy.
            local.queue_arns["requests"],
            local.queue_arns["requests-dlq"],
            local.queue_arns["maintenance"],
            local.queue_arns["maintenance-dlq"],
          ]
        },
        {
          Sid      = "SweepReplyQueues"
          Effect   = "Allow"
          Action   = "sqs:DeleteQueue"
          Resource = local.reply_queues_arn
        },
        {
          Sid    = "ListQueues"
          Effect = "Allow"
          Action = "sqs:ListQueues"
          # AWS knows no narrower resource for it.
          Resource = "*"
        },
        {
          Sid      = "ClaimEndAndMaintain"
          Effect   = "Allow"
          Action   = ["dynamodb:BatchGetItem", "dynamodb:ConditionCheckItem", "dynamodb:DeleteItem", "dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:Scan", "dynamodb:UpdateItem"]
          Resource = local.table_arn
        },
        {
          Sid      = "Candidates"
          Effect   = "Allow"
          Action   = ["dynamodb:PartiQLSelect", "dynamodb:Query"]
          Resource = local.index_arn
        },
      ], local.key_statements)
    })

    # For people: `broker pool`, `broker sandbox`, `broker job`, `broker quarantine`, `broker dead-letters`, `broker queues`, `broker overview`, `broker audit`, `broker doctor`. No role of this module carries it; attach it
    # where operators log in.
    operator = jsonencode({
      Version = "2012-10-17"
      Statement = concat([
        local.keep_the_audit,
        {
          Sid      = "ListQueues"
          Effect   = "Allow"
          Action   = "sqs:ListQueues"
          Resource = "*"
        },
        {
          Sid      = "MeasureQueues"
          Effect   = "Allow"
          Action   = ["sqs:GetQueueUrl", "sqs:GetQueueAttributes"]
          Resource = sort(values(local.queue_arns))
        },
        {
          Sid      = "MeasureReplyQueues"
          Effect   = "Allow"
          Action   = "sqs:GetQueueAttributes"
          Resource = local.reply_queues_arn
        },
        {
          Sid      = "RunJobsAndReplay"
          Effect   = "Allow"
          Action   = "sqs:SendMessage"
          Resource = [local.queue_arns["requests"], local.queue_arns["maintenance"]]
        },
        {
          Sid      = "ExamineTheTable"
          Effect   = "Allow"
          Action   = ["dynamodb:DescribeTable", "dynamodb:DescribeTimeToLive"]
          Resource = [local.table_arn, local.restore_arn]
        },
        {
          Sid      = "ReadAndMendThePoolAndDeadLetters"
          Effect   = "Allow"
          Action   = ["dynamodb:BatchGetItem", "dynamodb:ConditionCheckItem", "dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:Scan", "dynamodb:UpdateItem"]
          Resource = [local.table_arn, local.restore_arn]
        },
        {
          Sid      = "Quarantine"
          Effect   = "Allow"
          Action   = "dynamodb:Query"
          Resource = [local.index_arn, "${local.restore_arn}/index/StateIndex"]
        },
      ], local.key_statements)
    })
  }
}

resource "aws_iam_policy" "operator" {
  name        = "${var.name}-operator"
  description = "What the broker command does for an operator: pool and queues"
  policy      = local.policies["operator"]
  path        = var.role_path
  tags        = local.tags
}
