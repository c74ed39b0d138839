# API and worker as Fargate services of one cluster.

resource "aws_ecs_cluster" "this" {
  count = local.own_cluster ? 1 : 0

  name = var.name
  tags = local.tags

  # RunningTaskCount, by which the workers' backlog is divided, comes from Container Insights.
  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

locals {
  services = {
    api    = { cpu = var.api.cpu, memory = var.api.memory, command = ["/usr/local/bin/broker-api"] }
    worker = { cpu = var.worker.cpu, memory = var.worker.memory, command = ["/usr/local/bin/broker-worker"] }
  }

  # Where a worker keeps the lists of a sync that are too large for its memory (BROKER_SPOOL_DIR).
  volumes = { api = [], worker = ["tmp"] }

  # A thread for each whole CPU, so that a busy task looks busy to autoscaling.
  environments = {
    for name, service in local.services :
    name => merge(local.environment, { BROKER_THREADS = tostring(max(1, floor(service.cpu / 1024))) })
  }

  containers = {
    for name, service in local.services : name => concat([{
      name                   = name
      image                  = var.image
      command                = service.command
      essential              = true
      user                   = "65532:65532"
      readonlyRootFilesystem = true
      stopTimeout            = local.stop_timeout_s
      portMappings           = [for port in local.open_ports[name] : { containerPort = port, hostPort = port, protocol = "tcp" }]
      environment            = [for key in sort(keys(local.environments[name])) : { name = key, value = local.environments[name][key] }]
      secrets                = [for key in sort(keys(local.secret_arns[name])) : { name = key, valueFrom = local.secret_arns[name][key] }]
      mountPoints            = [for volume in local.volumes[name] : { sourceVolume = volume, containerPath = "/${volume}", readOnly = false }]
      linuxParameters        = { initProcessEnabled = false, capabilities = { drop = ["ALL"] } }
      # Liveness of the process only. Readiness is the target group's to ask (load_balancer.tf).
      healthCheck = {
        command     = ["CMD", "/usr/local/bin/healthy", tostring(local.ports[name])]
        interval    = 10
        timeout     = 5
        retries     = 3
        startPeriod = 15
      }
      logConfiguration = {
        logDriver = "awslogs"
        options = {
          awslogs-group         = local.log_group[name]
          awslogs-region        = local.region
          awslogs-stream-prefix = name
          # A slow CloudWatch must not stop the process.
          mode            = "non-blocking"
          max-buffer-size = "25m"
        }
      }
    }], local.collector_containers[name])
  }
}

resource "aws_ecs_task_definition" "this" {
  for_each = local.services

  family                   = "${var.name}-${each.key}"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = each.value.cpu
  memory                   = each.value.memory
  task_role_arn            = aws_iam_role.task[each.key].arn
  execution_role_arn       = aws_iam_role.execution[each.key].arn
  container_definitions    = jsonencode(local.containers[each.key])
  tags                     = local.tags

  dynamic "volume" {
    for_each = local.volumes[each.key]

    content {
      name = volume.value
    }
  }

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.cpu_architecture
  }
}

resource "aws_ecs_service" "api" {
  name            = local.service_name["api"]
  cluster         = local.cluster.arn
  task_definition = aws_ecs_task_definition.this["api"].arn
  desired_count   = local.desired.api
  launch_type     = "FARGATE"
  # New ones are ready before old ones are told to stop.
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  health_check_grace_period_seconds  = 30
  enable_ecs_managed_tags            = true
  propagate_tags                     = "SERVICE"
  tags                               = local.tags

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = var.private_subnet_ids
    security_groups  = [local.task_security_group["api"]]
    assign_public_ip = false
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.api.arn
    container_name   = "api"
    container_port   = local.ports.api
  }

  dynamic "load_balancer" {
    for_each = aws_lb_target_group.admin
    content {
      target_group_arn = load_balancer.value.arn
      container_name   = "api"
      container_port   = local.ports.admin
    }
  }

  # How many there are belongs to autoscaling, and to `paused`, which sets its bounds.
  lifecycle {
    ignore_changes = [desired_count]
  }

  depends_on = [aws_lb_listener.https, aws_lb_listener.admin, aws_lb_listener_rule.api, aws_lb_listener_rule.admin, aws_iam_role_policy.task, aws_iam_role_policy.execution]
}

resource "aws_ecs_service" "worker" {
  name                               = local.service_name["worker"]
  cluster                            = local.cluster.arn
  task_definition                    = aws_ecs_task_definition.this["worker"].arn
  desired_count                      = local.desired.worker
  launch_type                        = "FARGATE"
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  enable_ecs_managed_tags            = true
  propagate_tags                     = "SERVICE"
  tags                               = local.tags

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = var.private_subnet_ids
    security_groups  = [local.task_security_group["worker"]]
    assign_public_ip = false
  }

  lifecycle {
    ignore_changes = [desired_count]
  }

  depends_on = [aws_iam_role_policy.task, aws_iam_role_policy.execution]
}
