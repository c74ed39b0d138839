# A deployment into what a platform team has already: VPC, ECS cluster, load balancer with its listener, role path, boundary.

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

variable "image" {
  description = "The image to run, by digest."
  type        = string
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "private_subnet_ids" {
  description = "Subnets of the tasks, in two zones at least, with a way to AWS and to the provider."
  type        = list(string)
}

variable "cluster" {
  description = "The ECS cluster; Container Insights must be on."
  type        = object({ name = string, arn = string })
}

variable "load_balancer" {
  description = "The load balancer: listener, security group, arn_suffix, our host names, two free rule priorities; and the listener that only operators reach."
  type = object({
    listener_arn      = string
    security_group_id = string
    arn_suffix        = string
    hosts             = list(string)
    priority          = number

    admin = optional(object({ listener_arn = string }))
  })
}

variable "permissions_boundary_arn" {
  description = "Permissions boundary of every role; null for none."
  type        = string
  default     = null
}

variable "alarm_topic_arn" {
  description = "Where alarms go."
  type        = string
}

module "broker" {
  source = "../.."

  name                     = "broker"
  image                    = var.image
  vpc_id                   = var.vpc_id
  private_subnet_ids       = var.private_subnet_ids
  cluster                  = var.cluster
  load_balancer            = var.load_balancer
  role_path                = "/teams/labs/"
  permissions_boundary_arn = var.permissions_boundary_arn

  # A class at nine: more of both before it, fewer after it.
  scheduled_scaling = {
    class_begins     = { schedule = "cron(45 8 ? * MON-FRI *)", timezone = "Europe/Berlin", min_tasks = 6 }
    class_ends       = { schedule = "cron(0 12 ? * MON-FRI *)", timezone = "Europe/Berlin", min_tasks = 2 }
    class_begins_api = { service = "api", schedule = "cron(45 8 ? * MON-FRI *)", timezone = "Europe/Berlin", min_tasks = 4 }
    class_ends_api   = { service = "api", schedule = "cron(0 12 ? * MON-FRI *)", timezone = "Europe/Berlin", min_tasks = 2 }
  }

  alarms = { actions = [var.alarm_topic_arn] }
}

output "broker" {
  description = "What the broker command and the runbook ask for."
  value = {
    table               = module.broker.table_name
    prefix              = module.broker.prefix
    cluster             = module.broker.cluster_name
    services            = module.broker.service_names
    secret_arns         = module.broker.secret_arns
    operator_policy_arn = module.broker.operator_policy_arn
  }
}
