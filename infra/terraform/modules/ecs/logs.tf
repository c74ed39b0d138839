resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_158:kms_key_arn is the caller's choice; without it logs are encrypted by a key that AWS owns
  #checkov:skip=CKV_AWS_338:log_retention_days is a year by default; shorter is the caller's choice
  for_each = local.own_log_groups ? toset(["api", "worker"]) : toset([])

  name              = "/${var.name}/${each.key}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = local.tags
}
