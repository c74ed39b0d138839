# The whole broker in one module: data, Fargate services, alarms. Each part is a module of its own in modules/ and usable alone:
# a deployment on Kubernetes takes data, irsa and observability.

module "data" {
  source = "./modules/data"

  name                     = var.name
  table_name               = var.table_name
  restore_table_name       = var.restore_table_name
  state_shards             = var.state_shards
  provider_rate            = var.provider_rate
  job_intervals_s          = var.job_intervals_s
  external_schedule        = var.external_schedule
  paused                   = var.paused
  visibility_s             = var.visibility_s
  kms_key_arn              = var.kms_key_arn
  deletion_protection      = var.deletion_protection
  point_in_time_recovery   = var.point_in_time_recovery
  table_max_request_units  = var.table_max_request_units
  warm_throughput          = var.warm_throughput
  role_path                = var.role_path
  permissions_boundary_arn = var.permissions_boundary_arn
  tags                     = var.tags
}

module "ecs" {
  source = "./modules/ecs"

  environment         = module.data.environment
  policies            = module.data.policies
  requests_queue_name = module.data.queue_names["requests"]

  name                     = var.name
  image                    = var.image
  cpu_architecture         = var.cpu_architecture
  settings                 = var.settings
  service_secrets          = var.service_secrets
  drain_s                  = var.drain_s
  kms_key_arn              = var.kms_key_arn
  deletion_protection      = var.deletion_protection
  secret_recovery_days     = var.secret_recovery_days
  log_retention_days       = var.log_retention_days
  tags                     = var.tags
  cluster                  = var.cluster
  load_balancer            = var.load_balancer
  security_group_ids       = var.security_group_ids
  log_group_names          = var.log_group_names
  role_path                = var.role_path
  permissions_boundary_arn = var.permissions_boundary_arn
  collector                = var.collector
  otlp_endpoint            = var.otlp_endpoint
  otlp_cidrs               = var.otlp_cidrs
  vpc_id                   = var.vpc_id
  private_subnet_ids       = var.private_subnet_ids
  load_balancer_subnet_ids = var.load_balancer_subnet_ids
  private_route_table_ids  = var.private_route_table_ids
  create_vpc_endpoints     = var.create_vpc_endpoints
  vpc_cidr_blocks          = var.vpc_cidr_blocks
  internal                 = var.internal
  client_cidrs             = var.client_cidrs
  admin_cidrs              = var.admin_cidrs
  aws_cidrs                = var.aws_cidrs
  provider_cidrs           = var.provider_cidrs
  provider_ports           = var.provider_ports
  hook_cidrs               = var.hook_cidrs
  hook_ports               = var.hook_ports
  certificate_arn          = var.certificate_arn
  access_logs_bucket       = var.access_logs_bucket
  waf                      = var.waf
  api                      = var.api
  worker                   = var.worker
  autoscaling              = var.autoscaling
  paused                   = var.paused
  scheduled_scaling        = var.scheduled_scaling
}

module "observability" {
  source = "./modules/observability"

  table_name     = module.data.table_name
  queue_names    = module.data.queue_names
  census_minutes = module.data.census_minutes
  ecs = {
    cluster_name  = module.ecs.cluster_name
    service_names = module.ecs.service_names
    desired_tasks = module.ecs.desired_tasks
  }
  load_balancer = {
    arn_suffix              = module.ecs.load_balancer_arn_suffix
    target_group_arn_suffix = module.ecs.target_group_arn_suffix
    shared                  = var.load_balancer != null
  }
  log_groups          = module.ecs.log_groups
  collector_namespace = module.ecs.collector_namespace
  worker_scaling      = module.ecs.worker_scaling

  name         = var.name
  paused       = var.paused
  save_queries = var.save_queries
  alarms       = var.alarms
  tags         = var.tags
}
