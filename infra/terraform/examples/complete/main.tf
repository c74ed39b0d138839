# A deployment from nothing: network, certificate, on-call topic, key, the broker. What a platform team has already, it passes in instead.

terraform {
  # `use_lockfile` of the backend.
  required_version = ">= 1.10"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80, < 7.0"
    }
  }

  # Two people must not apply at once, and the state must outlive a laptop: `terraform init -backend-config=...`.
  backend "s3" {
    use_lockfile = true
    encrypt      = true
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = { service = "sandbox-broker", managed-by = "terraform" }
  }
}

variable "region" {
  description = "AWS region."
  type        = string
  default     = "eu-central-1"
}

variable "name" {
  description = "What every name begins with."
  type        = string
  default     = "broker"
}

variable "image" {
  description = "The image to run, by digest."
  type        = string
}

variable "domain" {
  description = "The API's name in DNS, e.g. broker.example.org."
  type        = string
}

variable "zone_id" {
  description = "The Route 53 zone of the domain."
  type        = string
}

variable "on_call_email" {
  description = "The topic that alarms notify; null for none."
  type        = string
  default     = null
}

variable "paused" {
  description = "Scales the services to zero; see the module."
  type        = bool
  default     = false
}

variable "table_name" {
  description = "Name of the table after a restore; null takes name."
  type        = string
  default     = null
}

module "broker" {
  source = "../.."

  name                     = var.name
  image                    = var.image
  vpc_id                   = aws_vpc.this.id
  private_subnet_ids       = [for subnet in aws_subnet.private : subnet.id]
  load_balancer_subnet_ids = [for subnet in aws_subnet.public : subnet.id]
  private_route_table_ids  = [aws_route_table.private.id]
  certificate_arn          = aws_acm_certificate_validation.this.certificate_arn
  table_name               = var.table_name
  # The VPC is the broker's own and has none yet.
  create_vpc_endpoints = true
  vpc_cidr_blocks      = [aws_vpc.this.cidr_block]
  paused               = var.paused

  # The load balancer is in the public subnets: what it says of a client's address counts.
  settings = { BROKER_TRUSTED_PROXIES = aws_vpc.this.cidr_block }

  alarms = {
    actions    = [aws_sns_topic.on_call.arn]
    ok_actions = [aws_sns_topic.on_call.arn]
  }
}

resource "aws_sns_topic" "on_call" {
  name              = "${var.name}-on-call"
  kms_master_key_id = aws_kms_key.on_call.arn
}

# CloudWatch cannot publish to a topic that is encrypted by the key that AWS manages, so the topic has its own.
resource "aws_kms_key" "on_call" {
  description         = "Sandbox broker: on-call topic"
  enable_key_rotation = true
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "TheAccountDecides"
        Effect    = "Allow"
        Principal = { AWS = "arn:aws:iam::${data.aws_caller_identity.this.account_id}:root" }
        Action    = "kms:*"
        Resource  = "*"
      },
      {
        Sid       = "AlarmsPublish"
        Effect    = "Allow"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Action    = ["kms:Decrypt", "kms:GenerateDataKey*"]
        Resource  = "*"
      },
    ]
  })
}

data "aws_caller_identity" "this" {}

resource "aws_sns_topic_subscription" "on_call" {
  for_each = toset(var.on_call_email[*])

  topic_arn = aws_sns_topic.on_call.arn
  protocol  = "email"
  endpoint  = each.value
}

output "url" {
  description = "Where the API is."
  value       = "https://${var.domain}"
}

output "broker" {
  description = "What the broker command and the runbook ask for."
  value = {
    table                   = module.broker.table_name
    prefix                  = module.broker.prefix
    cluster                 = module.broker.cluster_name
    services                = module.broker.service_names
    secret_arns             = module.broker.secret_arns
    operator_policy_arn     = module.broker.operator_policy_arn
    dashboard               = module.broker.dashboard_name
    warm_throughput_command = module.broker.warm_throughput_command
  }
}
