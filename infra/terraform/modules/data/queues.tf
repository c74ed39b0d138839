# The queues as common/queue/src/topology.rs makes them. Reply queues are made and removed by the API processes.

locals {
  day_s = 24 * 60 * 60

  # Receives before redrive moves a message, by queue.
  queues = { requests = 5, maintenance = 10 }
}

resource "aws_sqs_queue" "dead_letters" {
  #checkov:skip=CKV_AWS_27:encrypted with SSE-SQS unless kms_key_arn is given; checkov only knows the latter
  for_each = local.queues

  name = "${var.name}-${each.key}-dlq"
  # SQS counts retention from the first enqueue, so dead letters must outlive the 4 days of their source.
  message_retention_seconds = 14 * local.day_s
  receive_wait_time_seconds = 20
  sqs_managed_sse_enabled   = var.kms_key_arn == null ? true : null
  kms_master_key_id         = var.kms_key_arn
  tags                      = local.tags
}

resource "aws_sqs_queue" "this" {
  #checkov:skip=CKV_AWS_27:encrypted with SSE-SQS unless kms_key_arn is given; checkov only knows the latter
  for_each = local.queues

  name                       = "${var.name}-${each.key}"
  message_retention_seconds  = 4 * local.day_s
  receive_wait_time_seconds  = 20
  visibility_timeout_seconds = var.visibility_s
  # What is larger would find no place in the table as a dead letter.
  max_message_size        = 256 * 1024
  sqs_managed_sse_enabled = var.kms_key_arn == null ? true : null
  kms_master_key_id       = var.kms_key_arn
  tags                    = local.tags

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letters[each.key].arn
    maxReceiveCount     = each.value
  })
}

# No other queue may use ours for its dead letters.
resource "aws_sqs_queue_redrive_allow_policy" "this" {
  for_each = local.queues

  queue_url = aws_sqs_queue.dead_letters[each.key].id
  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.this[each.key].arn]
  })
}

# No call without TLS. Who may call at all is said by the roles alone.
resource "aws_sqs_queue_policy" "tls_only" {
  for_each = merge(
    { for name, queue in aws_sqs_queue.this : name => queue },
    { for name, queue in aws_sqs_queue.dead_letters : "${name}-dlq" => queue },
  )

  queue_url = each.value.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "TlsOnly"
      Effect    = "Deny"
      Principal = "*"
      Action    = "sqs:*"
      Resource  = each.value.arn
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
}
