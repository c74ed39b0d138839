# What the broker needs of AWS when it runs on EKS: table and queues, roles of its pods, alarms on queues and table. No Fargate.
# The pods themselves come from the Helm chart (infra/kubernetes/chart); the output values is a part of its values.

terraform {
  # `use_lockfile` of the backend.
  required_version = ">= 1.10"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80, < 7.0"
    }
  }

  backend "s3" {
    use_lockfile = true
    encrypt      = true
  }
}

provider "aws" {
  region = var.region
}

variable "region" {
  description = "AWS region."
  type        = string
  default     = "eu-central-1"
}

variable "oidc_provider_arn" {
  description = "ARN of the cluster's OIDC provider."
  type        = string
}

variable "keda_operator_role_arn" {
  description = "Role of the KEDA operator."
  type        = string
}

variable "alarm_topic_arn" {
  description = "Where alarms go."
  type        = string
}

module "data" {
  source = "../../modules/data"

  name = "broker"
}

module "irsa" {
  source = "../../modules/irsa"

  name                   = "broker"
  policies               = module.data.policies
  oidc_provider_arn      = var.oidc_provider_arn
  keda_operator_role_arn = var.keda_operator_role_arn
}

module "observability" {
  source = "../../modules/observability"

  name           = "broker"
  table_name     = module.data.table_name
  queue_names    = module.data.queue_names
  census_minutes = module.data.census_minutes
  alarms         = { actions = [var.alarm_topic_arn] }
}

output "values" {
  description = "Values of the Helm chart, as YAML."
  value = yamlencode({
    aws = {
      region           = var.region
      requestsQueueUrl = module.data.queue_urls["requests"]
      roleArns         = module.irsa.role_arns
    }
    settings = module.data.environment
  })
}
