# Empty secrets: their values never pass through Terraform or its state. Put them in with
# `aws secretsmanager put-secret-value`; tasks do not start before (infra/docs/DEPLOY.md; RUNBOOK.md, "Rotate tokens").

locals {
  secrets = {
    track-tokens = { variable = "BROKER_TRACK_TOKENS", for = ["api"], holds = "tokens of platforms: name=token, one a line" }
    admin-tokens = { variable = "BROKER_ADMIN_TOKENS", for = ["api"], holds = "tokens of operators: name=token, one a line" }
  }
}

resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV_AWS_149:kms_key_arn is the caller's choice; without it the account's own Secrets Manager key encrypts
  #checkov:skip=CKV2_AWS_57:tokens are shared with platforms outside AWS; rotation is two values valid at once and a runbook, not a Lambda
  for_each = local.secrets

  name                    = "${var.name}/${each.key}"
  description             = "Sandbox broker, ${each.value.holds}"
  kms_key_id              = var.kms_key_arn
  recovery_window_in_days = var.secret_recovery_days
  tags                    = local.tags
}
