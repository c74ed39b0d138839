# One role per service, one for ECS itself (image, logs, secrets).

locals {
  ecs_may_assume = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      # Only ECS acting for this account: no confused deputy.
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })

  log_group_arn = {
    for service, name in local.log_group : service => local.own_log_groups ? aws_cloudwatch_log_group.this[service].arn : (
      "arn:${data.aws_partition.this.partition}:logs:${local.region}:${local.account}:log-group:${name}"
    )
  }

  # Which secret arrives in which process under which name.
  secret_arns = {
    for service in ["api", "worker"] : service => merge(
      { for name, secret in local.secrets : secret.variable => aws_secretsmanager_secret.this[name].arn if contains(secret.for, service) },
      var.service_secrets[service],
    )
  }
}

resource "aws_iam_role" "task" {
  for_each = toset(["api", "worker"])

  name                 = "${var.name}-${each.key}-task"
  path                 = var.role_path
  permissions_boundary = var.permissions_boundary_arn
  assume_role_policy   = local.ecs_may_assume
  tags                 = local.tags
}

resource "aws_iam_role_policy" "task" {
  for_each = aws_iam_role.task

  name   = "work"
  role   = each.value.id
  policy = var.policies[each.key]
}

# What ECS needs before the process runs. Per service, because only the API may see tokens.
resource "aws_iam_role" "execution" {
  for_each = toset(["api", "worker"])

  name                 = "${var.name}-${each.key}-execution"
  path                 = var.role_path
  permissions_boundary = var.permissions_boundary_arn
  assume_role_policy   = local.ecs_may_assume
  tags                 = local.tags
}

resource "aws_iam_role_policy" "execution" {
  for_each = aws_iam_role.execution

  name = "start"
  role = each.value.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid      = "WriteLogs"
          Effect   = "Allow"
          Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
          Resource = "${local.log_group_arn[each.key]}:*"
        },
      ],
      [for repository in local.ecr_repository_arn[*] : {
        Sid      = "PullImage"
        Effect   = "Allow"
        Action   = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = repository
      }],
      [for repository in local.ecr_repository_arn[*] : {
        Sid    = "LogInToEcr"
        Effect = "Allow"
        Action = "ecr:GetAuthorizationToken"
        # AWS knows no resource for it.
        Resource = "*"
      }],
      [for arns in [sort(values(local.secret_arns[each.key]))] : {
        Sid      = "ReadSecrets"
        Effect   = "Allow"
        Action   = "secretsmanager:GetSecretValue"
        Resource = arns
      } if length(arns) > 0],
      [for arn in var.kms_key_arn[*] : {
        Sid      = "UseTheKey"
        Effect   = "Allow"
        Action   = "kms:Decrypt"
        Resource = arn
      }],
    )
  })
}

locals {
  # registry id, region and repository of an image in ECR; null for any other registry.
  ecr = try(regex("^([0-9]{12})\\.dkr\\.ecr\\.([a-z0-9-]+)\\.amazonaws\\.[a-z.]+/([^:@]+)", var.image), null)
  ecr_repository_arn = local.ecr == null ? null : (
    "arn:${data.aws_partition.this.partition}:ecr:${local.ecr[1]}:${local.ecr[0]}:repository/${local.ecr[2]}"
  )
}
