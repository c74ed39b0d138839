variable "vpc_id" {
  description = "The VPC of load balancer and tasks."
  type        = string

  validation {
    condition     = startswith(var.vpc_id, "vpc-")
    error_message = "vpc_id must be the id of a VPC."
  }
}

variable "private_subnet_ids" {
  description = "Subnets of the tasks, in two zones at least. Their way out leads to the provider (NAT), and to AWS by it or by the endpoints of this module."
  type        = list(string)

  validation {
    condition     = length(distinct(var.private_subnet_ids)) >= 2
    error_message = "Give at least two subnets, in different zones."
  }
}

variable "load_balancer_subnet_ids" {
  description = "Subnets of the load balancer, in two zones at least: public ones, or private ones if it is internal. Not needed with an existing load balancer."
  type        = list(string)
  default     = []

  validation {
    condition     = length(distinct(var.load_balancer_subnet_ids)) >= 2 || var.load_balancer != null
    error_message = "Give at least two subnets, in different zones, or an existing load balancer."
  }
}

variable "private_route_table_ids" {
  description = "Route tables of the private subnets, for the gateway endpoints of DynamoDB and S3 (image layers). Needed with create_vpc_endpoints."
  type        = list(string)
  default     = []

  validation {
    condition     = length(var.private_route_table_ids) > 0 || !var.create_vpc_endpoints
    error_message = "create_vpc_endpoints needs private_route_table_ids: a gateway endpoint without a route serves no traffic."
  }
}

variable "create_vpc_endpoints" {
  description = "Whether this module makes the VPC endpoints of DynamoDB, S3, SQS, Secrets Manager, CloudWatch Logs and ECR. They answer for the whole VPC (private DNS), so only for a VPC that has none of them."
  type        = bool
  default     = false
}

variable "vpc_cidr_blocks" {
  description = "All address ranges of the VPC: who may use the VPC endpoints. Needed with create_vpc_endpoints."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.vpc_cidr_blocks : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "vpc_cidr_blocks must be address ranges, none of them /0."
  }

  validation {
    condition     = length(var.vpc_cidr_blocks) > 0 || !var.create_vpc_endpoints
    error_message = "create_vpc_endpoints needs vpc_cidr_blocks: private DNS sends the whole VPC to the endpoints, so the whole VPC is admitted."
  }
}

variable "internal" {
  description = "Whether the load balancer has private addresses only."
  type        = bool
  default     = false
}

variable "client_cidrs" {
  description = "From where the API may be called."
  type        = list(string)
  default     = ["0.0.0.0/0"]

  validation {
    condition     = length(var.client_cidrs) > 0 && alltrue([for cidr in var.client_cidrs : can(cidrhost(cidr, 0))])
    error_message = "client_cidrs must be address ranges, at least one."
  }
}

variable "admin_cidrs" {
  description = "From where operators may call the admin routes, docs and metrics, at port 8443 of the load balancer; empty: from nowhere. With an existing load balancer it has no effect: see load_balancer.admin. For callers within the VPC open port 8081 of the security group of the tasks (output task_security_group_ids)."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.admin_cidrs : can(cidrhost(cidr, 0)) && cidr != "0.0.0.0/0"])
    error_message = "admin_cidrs must be address ranges, and not the whole internet."
  }
}

variable "aws_cidrs" {
  description = "Where AWS is, port 443, for API and workers; empty: only the endpoints of create_vpc_endpoints, or what rules of your own admit."
  type        = list(string)
  default     = ["0.0.0.0/0"]

  validation {
    condition     = alltrue([for cidr in var.aws_cidrs : can(cidrhost(cidr, 0))])
    error_message = "aws_cidrs must be address ranges."
  }
}

variable "provider_cidrs" {
  description = "Where the provider's HTTPS API is, for workers; AWS is aws_cidrs."
  type        = list(string)
  default     = ["0.0.0.0/0"]

  validation {
    condition     = length(var.provider_cidrs) > 0 && alltrue([for cidr in var.provider_cidrs : can(cidrhost(cidr, 0))])
    error_message = "provider_cidrs must be address ranges, at least one."
  }
}

variable "provider_ports" {
  description = "TCP ports of the provider's API, e.g. [443, 8443]."
  type        = list(number)
  default     = [443]

  validation {
    condition     = alltrue([for port in var.provider_ports : port >= 1 && port <= 65535 && floor(port) == port])
    error_message = "provider_ports must be port numbers."
  }
}

variable "hook_cidrs" {
  description = "Where the policy's hooks are, for workers; empty: no way there but what aws_cidrs admits on port 443. Private ones also need BROKER_HOOK_NETWORKS."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.hook_cidrs : can(cidrhost(cidr, 0))])
    error_message = "hook_cidrs must be address ranges."
  }
}

variable "hook_ports" {
  description = "TCP ports of the hooks, e.g. [443, 8443]."
  type        = list(number)
  default     = [443]

  validation {
    condition     = alltrue([for port in var.hook_ports : port >= 1 && port <= 65535 && floor(port) == port])
    error_message = "hook_ports must be port numbers."
  }
}

variable "certificate_arn" {
  description = "The ACM certificate of the HTTPS listener. Not needed with an existing load balancer."
  type        = string
  default     = null

  validation {
    condition     = var.load_balancer != null || can(regex("^arn:[^:]+:acm:", var.certificate_arn))
    error_message = "certificate_arn must be the ARN of an ACM certificate, unless there is a load balancer already."
  }
}

variable "access_logs_bucket" {
  description = "S3 bucket for the load balancer's access logs; null for none (the API logs each request itself)."
  type        = string
  default     = null
}

variable "waf" {
  description = "The web ACL. requests_per_5_min is per address and high on purpose: a whole platform calls from one address, at 1,000/s it makes 300,000. without_token_per_5_min bounds addresses that send no Authorization header. Ranges in trusted_cidrs are never limited. log_blocked keeps a line for each blocked request."
  type = object({
    enabled                 = optional(bool, true)
    requests_per_5_min      = optional(number, 900000)
    without_token_per_5_min = optional(number, 2000)
    trusted_cidrs           = optional(list(string), [])
    log_blocked             = optional(bool, true)
  })
  default = {}

  validation {
    condition     = var.waf.requests_per_5_min >= 300000
    error_message = "waf.requests_per_5_min below 300000 stops a platform of 1,000 requests a second behind one address."
  }

  validation {
    condition     = var.waf.without_token_per_5_min >= 10
    error_message = "waf.without_token_per_5_min must be at least 10 (a limit of AWS)."
  }

  validation {
    condition     = alltrue([for cidr in var.waf.trusted_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "waf.trusted_cidrs must be address ranges, none of them /0."
  }
}

variable "cluster" {
  description = "An existing ECS cluster with Container Insights switched on; null makes one. In a shared cluster the services are called NAME-api and NAME-worker."
  type        = object({ name = string, arn = string })
  default     = null
}

variable "load_balancer" {
  description = "An existing application load balancer: its HTTPS listener, security group, arn_suffix, our host names and two free rule priorities from `priority` on. null makes one. Its idle timeout must be 60 s and its security group must reach the tasks on port 8080, and with `admin` on 8081. admin.listener_arn is another HTTPS listener of it that only operators reach: our host names lead to the admin routes, docs and metrics there (port 8081 of the tasks); null: nobody reaches them."
  type = object({
    listener_arn      = string
    security_group_id = string
    arn_suffix        = string
    hosts             = list(string)
    priority          = optional(number, 100)

    admin = optional(object({ listener_arn = string }))
  })
  default = null

  validation {
    condition     = var.load_balancer == null ? true : length(var.load_balancer.hosts) > 0
    error_message = "load_balancer.hosts must name at least one host: the listener serves others as well."
  }
}

variable "security_group_ids" {
  description = "Existing security groups of the tasks; null makes them with the rules of this module."
  type        = object({ api = string, worker = string })
  default     = null
}

variable "log_group_names" {
  description = "Existing log groups; null makes /NAME/api and /NAME/worker."
  type        = object({ api = string, worker = string })
  default     = null
}

variable "collector" {
  description = "A collector container beside each task (AWS Distro for OpenTelemetry, by digest): writes the processes' metrics to CloudWatch in the embedded metric format with the dimension prefix, and traces to X-Ray. metrics are regular expressions of the names to keep, because each is charged. null for none."
  type = object({
    image      = string
    interval_s = optional(number, 60)
    traces     = optional(bool, true)
    metrics = optional(list(string), [
      "broker_ready", "broker_pool_.+", "broker_queue_.+", "broker_dead_letters", "broker_dead_letter_oldest_age_seconds",
      "broker_provider_breaker_state", "broker_clock_skew_seconds", "broker_pending_replies",
    ])
  })
  default = null

  validation {
    condition     = var.collector == null ? true : can(regex("@sha256:[0-9a-f]{64}$", var.collector.image))
    error_message = "collector.image must be given by digest."
  }
}

variable "otlp_endpoint" {
  description = "Base URL of a collector elsewhere that takes traces as OTLP over HTTP (BROKER_OTLP_ENDPOINT), e.g. http://collector.internal:4318; the tasks' security groups let them reach its port. null for none, or for the collector beside the task."
  type        = string
  default     = null

  validation {
    condition     = var.otlp_endpoint == null || can(regex("^https?://[^\\s/?#@]+(/[^\\s?]*)?$", var.otlp_endpoint))
    error_message = "otlp_endpoint must be an http or https URL, without a password and a query."
  }
}

variable "otlp_cidrs" {
  description = "Address ranges of otlp_endpoint."
  type        = list(string)
  default     = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]

  validation {
    condition     = length(var.otlp_cidrs) > 0 && alltrue([for cidr in var.otlp_cidrs : can(cidrhost(cidr, 0))])
    error_message = "otlp_cidrs must be address ranges, at least one."
  }
}
