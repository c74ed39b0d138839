# The module against an endpoint on this machine: what infra/check/apply applies, uses and destroys. Not for AWS.
# All but what the endpoint does not know: Application Auto Scaling, saved queries, the web ACL's log, prefix lists of gateway endpoints.

terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80, < 7.0"
    }
  }
}

variable "endpoint" {
  description = "URL of the endpoint that stands for every AWS service."
  type        = string

  validation {
    condition     = startswith(var.endpoint, "http://127.0.0.1:")
    error_message = "Only this machine."
  }
}

variable "table_name" {
  description = "Name of the table after a restore; null takes the module's name."
  type        = string
  default     = null
}

provider "aws" {
  region                      = "us-east-1"
  access_key                  = "local"
  secret_key                  = "local"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true

  endpoints {
    acm            = var.endpoint
    cloudwatch     = var.endpoint
    cloudwatchlogs = var.endpoint
    dynamodb       = var.endpoint
    ec2            = var.endpoint
    ecs            = var.endpoint
    elbv2          = var.endpoint
    iam            = var.endpoint
    scheduler      = var.endpoint
    secretsmanager = var.endpoint
    sqs            = var.endpoint
    sts            = var.endpoint
    wafv2          = var.endpoint
  }
}

resource "aws_vpc" "this" {
  cidr_block = "10.20.0.0/16"
}

resource "aws_subnet" "this" {
  count = 2

  vpc_id            = aws_vpc.this.id
  availability_zone = "us-east-1${["a", "b"][count.index]}"
  cidr_block        = cidrsubnet(aws_vpc.this.cidr_block, 8, count.index)
}

resource "aws_route_table" "this" {
  vpc_id = aws_vpc.this.id
}

resource "aws_acm_certificate" "this" {
  domain_name       = "broker.invalid"
  validation_method = "DNS"
}

module "broker" {
  source = "../"

  name                     = "applied"
  table_name               = var.table_name
  image                    = "broker:local"
  cpu_architecture         = "X86_64"
  vpc_id                   = aws_vpc.this.id
  private_subnet_ids       = aws_subnet.this[*].id
  load_balancer_subnet_ids = aws_subnet.this[*].id
  private_route_table_ids  = [aws_route_table.this.id]
  certificate_arn          = aws_acm_certificate.this.arn
  autoscaling              = false
  create_vpc_endpoints     = false
  save_queries             = false
  waf                      = { log_blocked = false, trusted_cidrs = ["192.0.2.0/24"] }
  deletion_protection      = false
  secret_recovery_days     = 0
  external_schedule        = { sync = "rate(10 minutes)" }
}

output "table" {
  description = "BROKER_TABLE."
  value       = module.broker.table_name
}

output "prefix" {
  description = "BROKER_PREFIX."
  value       = module.broker.prefix
}
